"""Attention of a sequence to itself, to its past, and to another sequence, by any mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from regard.errors import UserError
from regard.nn.mechanisms import (
    Given,
    Learned,
    built,
    call,
    head_width,
    joined,
    made_causal,
    settled,
    split,
    with_dropout,
)
from regard.protocol import Attention


class CrossAttention(nn.Module):
    """q = x W_q, k = c W_k, v = c W_v, o = attention(q, k, v) W_o (Vaswani 2017, section 3.2.2-3.2.3).

    width: of the tokens; context_width: of the sequence attended to (None: the same); heads: query heads; groups:
    key-value heads (None: as many). mechanism: a Mechanism, its text form, or Learned. The record is built each
    forward; `weights` are returned where need_weights is set.
    """

    mechanism: Attention | Learned

    def __init__(
        self,
        width: int,
        context_width: int | None = None,
        heads: int = 1,
        mechanism: Given = "scaled_dot",
        *,
        groups: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        each, groups = head_width(width, heads, "a width"), heads if groups is None else groups
        if groups < 1 or heads % groups:
            raise UserError(f"{heads} query heads do not divide over {groups} key-value heads; choose a divisor")
        self.heads, self.groups, self.dropout = heads, groups, dropout
        self.mechanism = settled(mechanism)
        given = width if context_width is None else context_width
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(given, groups * each, bias=bias)
        self.value = nn.Linear(given, groups * each, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def attention(self) -> Attention:
        """The mechanism of this forward, with dropout while training."""
        return with_dropout(built(self.mechanism), self.dropout, self.training)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        *,
        valid: Tensor | None = None,
        per_query: Mapping[str, Tensor] | None = None,
        per_key: Mapping[str, Tensor] | None = None,
        need_weights: bool = False,
        **positions: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B,T,width], context [B,Tk,context width] -> [B,T,width], and weights [B,heads,T,Tk] or None.

        valid: bool [B,Tk], False for padding, which is never read. positions: query_positions, key_positions; where T
        and Tk differ they are needed by a mechanism that reads them. per_query, per_key: extras such as gates.
        """
        q, k, v = split(self.query(x), self.heads), split(self.key(context), self.groups), self.value(context)
        found, weights = call(
            self.attention(),
            q,
            k,
            split(v, self.groups),
            need_weights,
            per_query,
            per_key,
            key_valid=valid,
            **positions,
        )
        return self.out(joined(found)), weights


class SelfAttention(CrossAttention):
    """q, k, v from the same tokens: o = attention(x W_q, x W_k, x W_v) W_o."""

    def __init__(self, width: int, heads: int = 1, mechanism: Given = "scaled_dot", **options: Any) -> None:
        super().__init__(width, None, heads, mechanism, **options)

    def forward(  # type: ignore[override]
        self, x: Tensor, *, positions: Tensor | None = None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """x [B,T,width] -> [B,T,width], and weights or None. positions: [T] or [B,T]; options as CrossAttention's."""
        return super().forward(x, x, query_positions=positions, key_positions=positions, **options)


class CausalSelfAttention(SelfAttention):
    """Self-attention in which no token sees a later one: the mechanism's mask and causal, both."""

    def attention(self) -> Attention:
        return with_dropout(made_causal(built(self.mechanism)), self.dropout, self.training)
