"""Native sparse attention: compressed, selected and recent keys, gated."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from regard.composite import Gates, Sum
from regard.errors import UserError
from regard.inputs import Inputs
from regard.parts.defaults import mechanism_with
from regard.parts.masks import causal, window
from regard.parts.select import Compress, SelectByCompressed
from regard.zoo.card import Card, Sizes

SOURCE = "Yuan et al. 2025, Native Sparse Attention, eq. 5-12"


def nsa(*, w: Tensor, count: int, width: int, gates: Gates | None = None, e: Tensor | None = None) -> Sum:
    """o = Σ_c g_c o_c over compressed blocks, the `count` best blocks, and a window of `width`; all causal.

    w: [l] weights of a block's tokens, e: [l,Dk] positions within one or None. gates: Inputs -> [B,H,Tq,3] in (0, 1);
    None reads them from per_query["gates"].
    """
    compress = Compress(w, e)
    branches = (
        mechanism_with("compressed", SOURCE, prepare=(compress,), mask=causal()),
        mechanism_with("selected", SOURCE, prepare=(SelectByCompressed(compress, count),), mask=causal()),
        mechanism_with("window", SOURCE, mask=window(width)),
    )
    return Sum("nsa", SOURCE, branches, gates or given_gates)


def given_gates(x: Inputs) -> Tensor:
    """The gates that came with the queries, [B,H,Tq,3]."""
    if "gates" not in x.per_query:
        raise UserError("nsa needs a gate per branch: give per_query={'gates': [B,H,Tq,3]}, or gates=")
    return x.per_query["gates"]


def _gated(x: Inputs, s: Sizes) -> Inputs:
    gates = s.normal(x.q.shape[0], x.q.shape[1], x.q.shape[2], 3, seed=4).sigmoid()
    return x.replace(per_query={"gates": gates})


def _blocks(s: Sizes) -> dict[str, Any]:
    size = 2 if s.keys < 256 else 32
    return {"w": s.normal(size).softmax(0), "count": 2, "width": 3, "e": s.normal(size, s.key_width)}


CARDS = (
    Card(
        name="nsa",
        family="masks",
        line="Three views of the past, summaries, the best blocks and the latest tokens, weighed by gates.",
        equation="o = Σ_c g_c softmax(q K̃_cᵀ / √Dk) Ṽ_c,  c ∈ {compressed, selected, window}",
        source=SOURCE,
        time="O(n (n / l + k l + w) d)",
        memory="O(n (d + k))",
        attends="block summaries, the best blocks and a window: three rows of weights, no single one",
        factory=nsa,
        example=_blocks,
        arrange=_gated,
        parameters={"w": "[l]: weights of a block's tokens", "e": "[l,Dk]: positions within a block"},
    ),
)
