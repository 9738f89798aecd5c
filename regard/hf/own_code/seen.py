"""What the second seam hands over: one attention of a module with its exact weights, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regard.mechanism import WeightKind

Form = Literal["made", "restated", "band", "blocks", "buckets", "neighbours", "sampled"]

FORMS: dict[str, str] = {
    "made": "the model made the whole matrix itself; its memory is the model's own n²",
    "restated": "recomputed in strips from the queries, keys and mask that the module gave torch's fused attention",
    "band": "the model's own band of diagonals, placed back in strips",
    "blocks": "the model's own blocks, placed back in strips",
    "buckets": "the model's own hashed or local chunks, placed back in strips",
    "neighbours": "the model's own neighbourhoods, placed back in strips",
    "sampled": "the model's own sampling points, placed on the positions that they interpolate between",
}


@dataclass(frozen=True, eq=False)
class Seen:
    """One attention that a module computed in its own code.

    name: the module's dotted name. number: how many attentions this module made before in the same call of it.
    shape: (B, H, Tq, Tk). rows_of(a, b): exact weights [B, H, b - a, Tk] of query rows a to b, keys at their true
    positions. form: how the weights came about (FORMS). certain_of: the observations that make this tensor the
    attention. dropped: the probability with which the module drops weights afterwards (training); the weights are
    those before. kind: what a row of them is. cached: the keys [B, G, Tk, D] of the cache that the module was called
    with, to know it again by, or None.
    """

    name: str
    module: nn.Module
    number: int
    shape: tuple[int, int, int, int]
    rows_of: Callable[[int, int], Tensor]
    form: Form
    certain_of: tuple[str, ...]
    dropped: float = 0.0
    kind: WeightKind = "distribution"
    cached: Tensor | None = None

    def strips(self, strip_bytes: int = 8 << 20) -> Iterator[tuple[slice, Tensor]]:
        """Row slices and their weights [B, H, rows, Tk] in turn, float32 or float64, each about strip_bytes large."""
        batch, heads, queries, keys = self.shape
        step = max(1, strip_bytes // max(1, 4 * batch * heads * keys))
        for start in range(0, queries, step):
            stop = min(start + step, queries)
            yield slice(start, stop), widened(self.rows_of(start, stop))

    def weights(self) -> Tensor:
        """All rows at once, [B, H, Tq, Tk]."""
        return widened(self.rows_of(0, self.shape[2]))


@dataclass(frozen=True, eq=False)
class Doubt:
    """A module that attends in its own code and whose weights are not known for certain; says why."""

    name: str
    module: nn.Module
    reason: str


def widened(weights: Tensor) -> Tensor:
    return weights if weights.dtype == torch.float64 else weights.float()


def made(
    name: str, module: nn.Module, number: int, weights: Tensor, certain_of: tuple[str, ...], dropped: float = 0.0
) -> Seen:
    """A Seen of weights [B, H, Tq, Tk] that exist as one tensor."""
    batch, heads, queries, keys = weights.shape
    shape = (batch, heads, queries, keys)
    return Seen(name, module, number, shape, lambda a, b: weights[:, :, a:b], "made", certain_of, dropped)
