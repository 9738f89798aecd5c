"""Encoder and decoder layers with any mechanism; their state dicts load from torch's twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu

from regard.errors import UserError
from regard.nn.mechanisms import Given
from regard.nn.multi_head import MultiHeadAttention

Activation = Callable[[Tensor], Tensor]
NAMED: dict[str, Activation] = {"relu": relu, "gelu": gelu}


class _Layer(nn.Module):
    """What encoder and decoder layers share: the feed-forward network and norms, before or after each block.

    Parameters come in torch's order, attention first, since optimizers keep their states by it.
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int,
        dropout: float,
        activation: str | Activation,
        layer_norm_eps: float,
        norm_first: bool,
        bias: bool,
        attentions: dict[str, MultiHeadAttention],
        how: dict[str, Any],
    ) -> None:
        super().__init__()
        if isinstance(activation, str) and activation not in NAMED:
            raise UserError(f"activation is one of {', '.join(NAMED)} or a function, not {activation!r}")
        for name, attention in attentions.items():
            self.add_module(name, attention)
        self.linear1 = nn.Linear(d_model, dim_feedforward, bias=bias, **how)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model, bias=bias, **how)
        self.norm_first = norm_first
        self.activation = NAMED[activation] if isinstance(activation, str) else activation
        numbers = range(1, len(attentions) + 2)
        for number in numbers:
            self.add_module(f"norm{number}", nn.LayerNorm(d_model, layer_norm_eps, bias=bias, **how))
        for number in numbers:
            self.add_module(f"dropout{number}", nn.Dropout(dropout))

    def _block(self, number: int, x: Tensor, block: Activation) -> Tensor:
        """x + block(norm(x)), or norm(x + block(x)); dropout on what the block gives."""
        norm, drop = self.get_submodule(f"norm{number}"), self.get_submodule(f"dropout{number}")
        return x + drop(block(norm(x))) if self.norm_first else norm(x + drop(block(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """x ← norm(x + attention(x)), x ← norm(x + W_2 f(W_1 x)) (Vaswani 2017, 3.1): torch's with any mechanism."""

    self_attn: MultiHeadAttention

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mechanism: Given = "scaled_dot",
    ) -> None:
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        own = MultiHeadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, mechanism=mechanism, **how)
        held = {"self_attn": own}
        super().__init__(d_model, dim_feedforward, dropout, activation, layer_norm_eps, norm_first, bias, held, how)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """src [L,N,E] ([N,L,E] with batch_first) -> the same shape; masks as in MultiHeadAttention."""

        def attend(x: Tensor) -> Tensor:
            return self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0]

        return self._block(2, self._block(1, src, attend), self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's output, feed-forward (Vaswani 2017, section 3.1), any mechanism each.

    mechanism: of the self-attention; cross_mechanism: of the attention to the memory.
    """

    self_attn: MultiHeadAttention
    multihead_attn: MultiHeadAttention

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mechanism: Given = "scaled_dot",
        cross_mechanism: Given = "scaled_dot",
    ) -> None:
        how: dict[str, Any] = {"device": device, "dtype": dtype}
        held = {
            name: MultiHeadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, mechanism=of, **how)
            for name, of in (("self_attn", mechanism), ("multihead_attn", cross_mechanism))
        }
        super().__init__(d_model, dim_feedforward, dropout, activation, layer_norm_eps, norm_first, bias, held, how)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt [T,N,E], memory [S,N,E] ([N,…] with batch_first) -> as tgt; masks as in MultiHeadAttention."""

        def own(x: Tensor) -> Tensor:
            return self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal)[0]

        def other(x: Tensor) -> Tensor:
            masks = (memory_key_padding_mask, False, memory_mask)
            return self.multihead_attn(x, memory, memory, *masks, is_causal=memory_is_causal)[0]

        return self._block(3, self._block(2, self._block(1, tgt, own), other), self._feed_forward)
