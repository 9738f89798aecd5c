"""What regard's recurrent models share with transformers: their configuration and how weights begin."""

from __future__ import annotations

import torch
from torch import nn
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
