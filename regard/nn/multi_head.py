"""torch.nn.MultiheadAttention with any mechanism inside: same parameters, names, arguments and results."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from regard.errors import UserError
from regard.inputs import inputs
from regard.mechanism import single
from regard.nn.masks import Masks, masks_of
from regard.nn.mechanisms import (
    Given,
    Learned,
    attend,
    built,
    head_width,
    joined,
    made_causal,
    reads_any_positions,
    settled,
    split,
    with_dropout,
)
from regard.parts.scores import Table
from regard.protocol import Attention


class MultiHeadAttention(nn.Module):
    """o = concat_h(attention(x W_q^h, y W_k^h, z W_v^h)) W_o (Vaswani 2017, section 3.2.2), a drop-in for torch's.

    State dicts load from torch.nn.MultiheadAttention and back. It differs in three ways: a row that may attend to
    nothing gives zeros where torch gives NaN; weights are those before dropout; is_causal needs no attn_mask.
    """

    # torch.nn.TransformerEncoderLayer asks this before it takes a fused path that would leave `forward` out.
    _qkv_same_embed_dim = False
    mechanism: Attention | Learned
    in_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        mechanism: Given = "scaled_dot",
    ) -> None:
        super().__init__()
        self.head_dim = head_width(embed_dim, num_heads, "embed_dim")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.batch_first, self.add_zero_attn = batch_first, add_zero_attn
        self.mechanism = settled(mechanism)
        self._make(bias, add_bias_kv, {"device": device, "dtype": dtype})

    def _make(self, bias: bool, add_bias_kv: bool, how: dict) -> None:
        """Parameters in torch's order and by torch's rules, so that equal seeds give equal modules."""
        width, separate = self.embed_dim, (self.kdim, self.vdim) != (self.embed_dim, self.embed_dim)
        shapes = {"q": (width, width), "k": (width, self.kdim), "v": (width, self.vdim)}
        for name, shape in shapes.items():
            made = nn.Parameter(torch.empty(shape, **how)) if separate else None
            self.register_parameter(f"{name}_proj_weight", made)
        self.in_proj_weight = None if separate else nn.Parameter(torch.empty((3 * width, width), **how))
        self.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * width, **how)) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(width, width, bias=bias, **how)
        for name in ("bias_k", "bias_v"):
            made = nn.Parameter(torch.empty((1, 1, width), **how)) if add_bias_kv else None
            self.register_parameter(name, made)
        for weight in self._projections() if separate else [self.in_proj_weight]:
            nn.init.xavier_uniform_(weight)  # type: ignore[arg-type]
        if bias:
            nn.init.zeros_(self.out_proj.bias)
        if add_bias_kv:
            nn.init.xavier_normal_(self.bias_k)  # type: ignore[arg-type]
            nn.init.xavier_normal_(self.bias_v)  # type: ignore[arg-type]

    def _projections(self) -> list[Tensor]:
        if self.in_proj_weight is not None:
            return list(self.in_proj_weight.chunk(3))
        return [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]  # type: ignore[list-item]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        query_positions: Tensor | None = None,
        key_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """query [L,N,E] ([N,L,E] with batch_first, [L,E] unbatched), key, value alike -> output, and weights or None.

        key_padding_mask [N,S] and attn_mask [L,S] or [N·heads,L,S]: bool, True = left out, or float, added to scores.
        Weights [N,L,S], averaged over heads unless average_attn_weights=False ([N,heads,L,S]). is_causal needs no
        attn_mask; where L and S differ, it and a mechanism that reads positions need query_positions [L] or [N,L]
        (key_positions default to 0 … S-1). Keys of add_bias_kv and add_zero_attn are seen by all.
        """
        unbatched = query.ndim == 2
        q, k, v = (self._batch_first(x, unbatched) for x in (query, key, value))
        if key_padding_mask is not None and unbatched:
            key_padding_mask = key_padding_mask[None]
        attention = built(self.mechanism)
        if is_causal and attn_mask is None and self._num_added:
            attn_mask = _causal_pairs(q.shape[1], k.shape[1], q.device)
        elif is_causal and attn_mask is None:
            attention = made_causal(attention)
        heads, masks = self._inputs(q, k, v, key_padding_mask, attn_mask)
        for bias in masks.biases:
            mechanism = single(attention, "a float mask adds to scores")
            attention = mechanism.replace(score=(*mechanism.score, Table(bias)))
        at = self._positions(attention, heads, query_positions, key_positions)
        attention = with_dropout(attention, self.dropout, self.training)
        x = inputs(
            *heads, key_valid=masks.valid, allowed=masks.allowed, query_positions=at, key_positions=key_positions
        )
        mixed, weights = attend(attention, x, need_weights)
        out = self.out_proj(joined(mixed))
        out = out[0] if unbatched else out if self.batch_first else out.transpose(0, 1)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if unbatched else weights
        return out, weights

    def _batch_first(self, x: Tensor, unbatched: bool) -> Tensor:
        if x.ndim != (2 if unbatched else 3):
            raise UserError(f"query, key and value must all be 3-D, or all 2-D where unbatched; got {list(x.shape)}")
        return x[None] if unbatched else x if self.batch_first else x.transpose(0, 1)

    def _inputs(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, attn_mask: Tensor | None
    ) -> tuple[tuple[Tensor, ...], Masks]:
        """Queries, keys and values by head, with what is added to the keys; and the masks."""
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), self._projections(), biases, strict=True))
        k, v = self._added(k, self.bias_k), self._added(v, self.bias_v)
        shape = (q.shape[0], self.num_heads, q.shape[1], key.shape[1])
        masks = masks_of(padding, attn_mask, shape, self._num_added)
        return tuple(split(t, self.num_heads) for t in (q, k, v)), masks

    @property
    def _num_added(self) -> int:
        return (self.bias_k is not None) + self.add_zero_attn

    def _positions(
        self, attention: Attention, heads: tuple[Tensor, ...], of_queries: Tensor | None, of_keys: Tensor | None
    ) -> Tensor | None:
        """Those of the queries as they came; without any, indices for dropout's noise where lengths differ."""
        if (of_queries is not None or of_keys is not None) and self._num_added:
            raise UserError(
                "keys that add_bias_kv and add_zero_attn append have no positions; leave query_positions out"
            )
        num_queries, num_keys = heads[0].shape[2], heads[1].shape[2]
        if of_queries is None and num_queries != num_keys and not reads_any_positions(attention):
            return torch.arange(num_queries, device=heads[0].device)
        return of_queries

    def _added(self, x: Tensor, learned: Tensor | None) -> Tensor:
        """Keys or values with torch's extra ones at the end: a learned one (add_bias_kv), a zero (add_zero_attn)."""
        if learned is not None:
            x = torch.cat([x, learned.expand(x.shape[0], 1, -1)], 1)
        return torch.cat([x, x.new_zeros(x.shape[0], 1, x.shape[2])], 1) if self.add_zero_attn else x


def _causal_pairs(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """bool [L,S]: True for later keys, where keys without positions come after them."""
    if num_queries != num_keys:
        raise UserError(
            f"is_causal does not say where {num_queries} queries on {num_keys} keys stand; give attn_mask instead"
        )
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).triu(1)
