"""What regard's recurrent models share: how weights begin, and how transformers' generate drives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from regard.seq2seq.config import RecurrentConfig


class RecurrentBase(PreTrainedModel):
    """The base of encoder, decoder and the whole. Padding stands on the right."""

    config_class = RecurrentConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Linear and recurrent layers begin as they made themselves; words with a standard deviation of 1/√width."""
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
            if module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])


class GeneratesInSteps:
    """What generate() asks of a recurrent decoder, whose cache says how many `steps` it has written.

    transformers knows a model that generates by GenerationMixin among its own bases, so that it stands beside this one.
    """

    config: Any

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The words before each label: the start token, then the labels but the last."""
        before = labels.new_full(labels.shape, self.config.decoder_start_token_id)
        before[:, 1:] = labels[:, :-1]
        return before.masked_fill(before == -100, self.config.pad_token_id or 0)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The first step makes the cache."""
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        **unused: Any,
    ) -> dict[str, Any]:
        """A step of generate: with a cache, only the token written last."""
        return {
            "decoder_input_ids": input_ids if past_key_values is None else input_ids[:, past_key_values.steps :],
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "encoder_outputs": encoder_outputs,
            "use_cache": True,
        }
