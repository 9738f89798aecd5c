"""Evidence: does what was looked at matter? Edges and tokens are taken away, the most attended first, and put back.

    deletion    log p(answer) after the best-ranked share of edges (or tokens) is hidden; it should fall at once
    insertion   log p(answer) with the best-ranked share alone; it should rise at once
    comprehensiveness = mean over shares of  p(y | all) - p(y | without the share)      (DeYoung 2020)
    sufficiency       = mean over shares of  p(y | all) - p(y | the share alone)

Normalised: by the difference between all and nothing shown, so that 1 is as much as can be lost (Edin 2024). An answer
is the next token of a position; by default the model's own first choice at the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.hf.attach import attach
from regard.hf.calls import Call
from regard.hf.layers import LayerId
from regard.swap.edits import Pattern, Selected

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class Hide(Selected):
    """What a dense table says is hidden, for every layer and head: shown bool [layers, heads, T, T], by layer index."""

    shown: dict[int, Tensor] | None = None

    def hides(self, layer: LayerId, call: Call, rows: slice) -> Ranges | None:
        if self.shown is None or layer.kind != "self" or layer.index not in self.shown:
            return None
        table = self.shown[layer.index][None, :, rows, call.first_key : call.first_key + call.k.shape[2]]
        return ranges.from_dense(table.to(call.q.device), max_runs=None)


@dataclass(frozen=True)
class Curve:
    """One ranking's curves over SHARES. deletion, insertion: log p of the answer. comprehensiveness, sufficiency: as
    above, normalised; high comprehensiveness and low sufficiency say that the ranking names what matters."""

    ranking: str
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    comprehensiveness: float
    sufficiency: float

    @property
    def deletion_area(self) -> float:
        """Mean of the deletion curve: the lower, the sooner the answer is lost."""
        return sum(self.deletion) / len(self.deletion)


@dataclass(frozen=True)
class Evidence:
    """whole, nothing: log p of the answer with all edges, and with those that nothing shows (each row sees itself)."""

    whole: float
    nothing: float
    curves: tuple[Curve, ...]


def evidence(
    model: nn.Module,
    ids: Tensor,
    *,
    position: int = -1,
    answer: int | None = None,
    seed: int = 0,
    shares: Sequence[float] = SHARES,
) -> Evidence:
    """Curves of edges ranked by attention, gradient × attention, recency and at random, for one sequence ids [1,T];
    and of whole tokens, ranked by the weight that they receive from a later row on average, by that of the answer's
    row, by gradient × attention, recency and at random.

    position: whose next token is the answer; answer: that token, by default the model's first choice. Every edge of
    every layer and head but those of a token to itself takes part. Raises UserError for models with no such edges.
    """
    if ids.ndim != 2 or ids.shape[0] != 1 or ids.shape[1] < 3:
        raise UserError(f"evidence is about one sequence of at least 3 tokens, ids [1, T], not {list(ids.shape)}")
    asking = _Asking(model, ids, position, answer)
    return asking.evidence(asking.rankings(seed), shares)


class _Asking:
    """One sequence, one answer."""

    def __init__(self, model: nn.Module, ids: Tensor, position: int, answer: int | None) -> None:
        self.model, self.ids = model, ids
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, position]
        self.position, self.answer = position, int(logits.argmax()) if answer is None else answer
        with torch.no_grad(), attach(model, keep="qk", watch=()) as trace:
            model(input_ids=ids, use_cache=False)
        self.weights = {layer.index: _all(trace, layer) for layer in trace.layers if layer.kind == "self"}
        if not self.weights:
            raise UserError(f"{type(model).__name__} has no self-attention whose edges could be hidden")
        length = ids.shape[1]
        self.edges = torch.ones(length, length, dtype=torch.bool).tril(-1)

    def rankings(self, seed: int) -> dict[str, dict[int, Tensor]]:
        """By name, a number for every edge of every layer [H,T,T]; larger is hidden first."""
        generator = torch.Generator().manual_seed(seed)
        at = torch.arange(self.ids.shape[1])
        near = -(at[:, None] - at).float()
        gradients = self.gradients()
        return {
            "attention": self.weights,
            "gradient × attention": {n: (gradients[n] * a).abs() for n, a in self.weights.items()},
            "recency": {n: near.expand(a.shape) for n, a in self.weights.items()},
            "random": {n: torch.rand(a.shape, generator=generator) for n, a in self.weights.items()},
            **self._tokens(gradients, generator),
        }

    def _tokens(self, gradients: dict[int, Tensor], generator: torch.Generator) -> dict[str, dict[int, Tensor]]:
        """Whole tokens, hidden as keys from every later row of every head: an edge's number is that of its key."""
        weights = torch.stack(list(self.weights.values()))  # [layers,H,T,T]
        slopes = torch.stack([gradients[n] for n in self.weights])
        later = self.edges.sum(0).clamp(min=1)
        hidden = ~self.edges
        numbers = {
            "received": weights.masked_fill(hidden, 0.0).sum((0, 1, 2)) / later,
            "last row": weights[:, :, self.position].sum((0, 1)),
            "gradient × attention": (slopes * weights).abs().masked_fill(hidden, 0.0).sum((0, 1, 2)),
            "recency": torch.arange(weights.shape[-1]).float(),
            "random": torch.rand(weights.shape[-1], generator=generator),
        }
        return {
            f"tokens: {name}": {n: values.expand(a.shape) for n, a in self.weights.items()}
            for name, values in numbers.items()
        }

    def gradients(self) -> dict[int, Tensor]:
        """∂ log p(answer) / ∂ a for every weight [H,T,T]: the same patterns, given as tensors that ask for it."""
        asked = {n: a.detach().clone().requires_grad_() for n, a in self.weights.items()}
        edits = [Pattern(tuple((n, h) for h in range(len(a))), None, weights=a) for n, a in asked.items()]
        with torch.enable_grad(), attach(self.model, watch=(), edit=edits):
            self.log_p(self.model(input_ids=self.ids, use_cache=False).logits).backward()
        found = {n: torch.zeros_like(a) if a.grad is None else a.grad for n, a in asked.items()}
        self.model.zero_grad(set_to_none=True)
        return found

    def log_p(self, logits: Tensor) -> Tensor:
        return logits[0, self.position].float().log_softmax(-1)[self.answer]

    def with_shown(self, shown: dict[int, Tensor]) -> float:
        """log p of the answer where these edges alone are shown."""
        with torch.no_grad(), attach(self.model, watch=(), edit=[Hide(None, None, shown=shown)]):
            return float(self.log_p(self.model(input_ids=self.ids, use_cache=False).logits))

    def evidence(self, rankings: dict[str, dict[int, Tensor]], shares: Sequence[float]) -> Evidence:
        every = {n: torch.ones_like(a, dtype=torch.bool) for n, a in self.weights.items()}
        none = {n: ~self.edges.expand(a.shape) for n, a in self.weights.items()}
        whole, nothing = self.with_shown(every), self.with_shown(none)
        curves = []
        for name, ranking in rankings.items():
            order = _ordered(ranking, self.edges)
            without = tuple(self.with_shown(_shown(order, share, every, False)) for share in shares)
            alone = tuple(self.with_shown(_shown(order, share, none, True)) for share in shares)
            curves.append(Curve(name, without, alone, *_summed(whole, nothing, without, alone)))
        return Evidence(whole, nothing, tuple(curves))


def _summed(whole: float, nothing: float, without: Sequence[float], alone: Sequence[float]) -> tuple[float, float]:
    """(comprehensiveness, sufficiency), normalised by what hiding everything loses."""
    p = torch.tensor([whole, nothing, *without, *alone], dtype=torch.float64).exp()
    lost = p[0] - p[2:]
    scale = p[0] - p[1]
    if abs(float(scale)) < 1e-9:
        return 0.0, 0.0
    count = len(without)
    return float(lost[:count].mean() / scale), float(lost[count:].mean() / scale)


def _all(trace: Any, layer: Any) -> Tensor:
    return torch.stack([trace.weights(layer, head) for head in layer.heads])


@dataclass(frozen=True, eq=False)
class _Order:
    """Edges from the best-ranked on: layer by place, head, query and key of each."""

    layers: list[int]
    heads: int
    flat: Tensor
    length: int


def _ordered(ranking: dict[int, Tensor], edges: Tensor) -> _Order:
    layers = sorted(ranking)
    numbers = torch.stack([ranking[n] for n in layers]).double().masked_fill(~edges, -torch.inf)
    count = int(edges.sum()) * numbers.shape[0] * numbers.shape[1]
    flat = numbers.flatten().argsort(descending=True, stable=True)[:count]
    return _Order(layers, numbers.shape[1], flat, edges.shape[0])


def _shown(order: _Order, share: float, start: dict[int, Tensor], value: bool) -> dict[int, Tensor]:
    """`start` with the first share of an order set to shown or hidden."""
    count = max(1, round(len(order.flat) * share))
    table = torch.stack([start[n] for n in order.layers])
    table.view(-1)[order.flat[:count]] = value
    return dict(zip(order.layers, table, strict=True))
