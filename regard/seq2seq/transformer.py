"""The Transformer encoder–decoder with any mechanism: transformers' Marian, its attentions exchanged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import MarianMTModel
from transformers.models.marian.modeling_marian import MarianAttention

from regard.errors import UserError
from regard.hf.seam import show
from regard.inputs import inputs
from regard.mechanism import Mechanism
from regard.nn.mechanisms import made_causal
from regard.run import compose
from regard.run.compose import resolved
from regard.seq2seq.config import TransformerConfig


class MechanismAttention(nn.Module):
    """o = concat_h(attention(x W_q, y W_k, y W_v)) W_o by a mechanism, in the place and with the names of Marian's."""

    def __init__(self, like: MarianAttention, mechanism: str, cross: bool) -> None:
        super().__init__()
        self.config, self.layer_idx, self.is_cross_attention = like.config, like.layer_idx, cross
        self.num_heads, self.head_dim, self.is_causal = like.num_heads, like.head_dim, like.is_causal
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = like.q_proj, like.k_proj, like.v_proj, like.out_proj
        found = resolved(mechanism)
        if not isinstance(found, Mechanism):
            raise UserError(f"{mechanism} is a composition, which a layer cannot hold; give a single mechanism")
        self.mechanism = made_causal(found) if like.is_causal else found

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, None]:
        """hidden_states [B,T,width], key_value_states [B,S,width] of a cross-attention -> [B,T,width]."""
        context = hidden_states if key_value_states is None else key_value_states
        q, k, v = (self._heads(part(x)) for part, x in zip(self._projections(), (hidden_states, context, context)))
        own = None if past_key_values is None else past_key_values.self_attention_cache
        first = 0 if own is None else own.get_seq_length(self.layer_idx)
        if own is not None and key_value_states is None:
            k, v = own.update(k, v, self.layer_idx)
        elif own is not None:
            first -= q.shape[2]  # the layer's self-attention has just written these
        valid = _valid(attention_mask, k.shape[2])
        at = torch.arange(first, first + q.shape[2], device=q.device)
        assert isinstance(self.mechanism, Mechanism)
        out = compose.attend(self.mechanism, inputs(q, k, v, query_positions=at, key_valid=valid))
        show(self, self.mechanism, q, k, v, valid, first)
        return self.out_proj(out.transpose(1, 2).flatten(2)), None

    def _projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.q_proj, self.k_proj, self.v_proj

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def _valid(mask: Any, num_keys: int) -> Tensor | None:
    """bool [B,S] of a 4-D mask's last row: the keys that are not padding."""
    if mask is None:
        return None
    dense = mask if isinstance(mask, Tensor) and not hasattr(mask, "own") else mask.own()
    if dense is None:
        return None
    last = dense[:, 0, -1, :num_keys]
    return last if last.dtype == torch.bool else last > torch.finfo(last.dtype).min / 2


class Transformer(MarianMTModel):
    """transformers' Marian with the mechanisms that its config names. With all of them scaled_dot, train a Marian."""

    config_class = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        for layer in self.model.encoder.layers:
            layer.self_attn = _exchanged(layer.self_attn, config.self_mechanism, False)
        for layer in self.model.decoder.layers:
            layer.self_attn = _exchanged(layer.self_attn, config.causal_mechanism, False)
            layer.encoder_attn = _exchanged(layer.encoder_attn, config.cross_mechanism, True)


def _exchanged(attention: nn.Module, mechanism: str, cross: bool) -> nn.Module:
    assert isinstance(attention, MarianAttention)
    return attention if mechanism == "scaled_dot" else MechanismAttention(attention, mechanism, cross)
