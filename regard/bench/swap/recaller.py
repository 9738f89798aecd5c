"""The recall bench's model as a transformers model, so that policies and mechanisms go into it as into any other."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from regard.bench.recall_task import HEADS, KEYS, LAYERS, VALUES, WIDTH, Recaller


class RecallConfig(tf.PretrainedConfig):
    """The sizes of the recall bench's model."""

    model_type = "recaller"

    def __init__(self, **options: Any) -> None:
        sizes = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS}
        super().__init__(**{**sizes, "num_key_value_heads": HEADS, "vocab_size": KEYS + VALUES, **options})
        self.use_cache = True


class RecallAttention(nn.Module):
    """One layer's attention through transformers' interface. Its parameters are named as the recall bench's."""

    is_causal = True
    num_key_value_groups = 1

    def __init__(self, config: RecallConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.scaling = (WIDTH // HEADS) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x: Tensor, mask: Any, cache: Any) -> Tensor:
        """x [B,T,width] -> [B,T,width]."""
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        attend: Any = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", nn.Identity)
        found = attend(self, q, k, v, mask, scaling=self.scaling, dropout=0.0)[0]
        return self.out(found.flatten(2))


class RecallForCausalLM(tf.PreTrainedModel, tf.GenerationMixin):
    """What `Recaller("causal")` computes. With a cache, each layer remembers its convolution's last two inputs."""

    config_class = RecallConfig
    _supports_sdpa = True

    def __init__(self, config: RecallConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(KEYS + VALUES, WIDTH)
        self.near = nn.ParameterList(torch.empty(WIDTH, 1, 3) for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS + 1))
        self.mixers = nn.ModuleList(RecallAttention(config, number) for number in range(LAYERS))
        self.scales = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VALUES)
        self.last: list[Tensor | None] = [None] * LAYERS
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, past_key_values: Any = None, **options: Any
    ) -> CausalLMOutputWithPast:
        """input_ids [B,T] -> logits [B,T,values]."""
        x = self.embed(input_ids)
        mask = create_causal_mask(self.config, x, attention_mask, past_key_values)
        first = past_key_values is None or not past_key_values.get_seq_length()
        for number, mix in enumerate(self.mixers):
            inputs = self.norms[number](x).transpose(1, 2)
            before = None if first else self.last[number]
            inputs = pad(inputs, (2, 0)) if before is None else torch.cat([before, inputs], -1)
            self.last[number] = None if past_key_values is None else inputs[..., -2:].detach()
            local = conv1d(inputs, self.near[number], groups=WIDTH).transpose(1, 2)
            x = x + self.scales[number](mix(local, mask, past_key_values))
        logits = self.head(self.norms[-1](x))
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


def as_transformers(source: Recaller) -> RecallForCausalLM:
    """The same model with the weights of a `Recaller("causal")`."""
    model = RecallForCausalLM(RecallConfig(attn_implementation="sdpa")).eval()
    names = {name.replace(".attend.", "."): tensor for name, tensor in source.state_dict().items()}
    model.load_state_dict({("head" + n[3:] if n.startswith("out.") else n): t for n, t in names.items()})
    return model
