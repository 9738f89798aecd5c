"""What stands around attention in a layer, so that every number of the worked example can be computed again: the
projections, the positions that are added, the heads joined and projected, the change added to the embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.explain.example import WIDTH, Example, projection
from regard.explain.grid import cells
from regard.explain.record import Panel, Step
from regard.mechanism import Mechanism
from regard.parts.prepare import AddPositions
from regard.parts.scores import Dot

AFTER = ("heads joined", "W_O", "projected", "added")
WHICH = {"q": 1, "k": 2, "v": 3}


def weight_step(name: str, weight: Tensor, equation: str, heads: int) -> Step:
    """A matrix [heads or none, rows, columns] of weights, its first `heads` heads."""
    each = weight if weight.ndim == 3 else weight[None]
    count = each.shape[0]
    panels = [
        Panel(
            f"head {head + 1} of {count}" if count > 1 else "",
            [f"in {row + 1}" for row in range(each.shape[1])],
            [str(column + 1) for column in range(each.shape[2])],
            cells(each[head]),
            "numbers",
        )
        for head in range(min(heads, count))
    ]
    return Step(name, equation, str(list(weight.shape)), panels)


def projection_of(made: Example, name: str, heads: int) -> Step:
    """W_q, W_k or W_v as this example made it up."""
    values: Tensor = getattr(made.x, name)
    return weight_step(f"W_{name}", projection(WHICH[name], values.shape[1]), "made up, one digit each", heads)


def of_part(part: Any, before: Tensor, after: Tensor, tokens: list[str]) -> list[Step]:
    """The matrices of a part that projects, and what a part adds for positions."""
    if isinstance(part, AddPositions) and before.shape == after.shape:
        added = (after - before)[0, 0]
        columns = [str(column + 1) for column in range(added.shape[-1])]
        panel = Panel("", tokens, columns, cells(added), "numbers")
        return [Step("positions", "P[p], what is added at each position", str(list(added.shape)), [panel])]
    found = []
    for name in WHICH:
        weight = getattr(part, f"w_{name}", None)
        if isinstance(weight, Tensor) and weight.ndim in (2, 3):
            found.append(weight_step(f"W_{name}", weight, "made up, one digit each", 1))
    return found


def goes_on(made: Example, family: str) -> bool:
    """Whether this is attention as a Transformer's layer has it, so that its heads are joined and projected."""
    attention = made.attention
    if not isinstance(attention, Mechanism) or attention.mix is None or not isinstance(attention.score[0], Dot):
        return False
    bare = made.plain and not any(hasattr(part, "w_q") for part in attention.prepare)
    return family in ("kinds", "masks", "normalisers", "positions", "text form") and not bare


def after(made: Example, out: Tensor) -> list[Step]:
    """From the heads' outputs [1,H,T,Dv] to the layer's: joined, times W_O, added to the embedding x.

    y = [o_1 ; … ; o_H] W_O,    x ← x + y
    """
    joined = out[0].transpose(0, 1).flatten(1)
    weight = _made_up(joined.shape[1])
    change = joined @ weight
    said = "[o_1 ; … ; o_H]: the heads of a token side by side"
    return [
        _rows("heads joined", said, joined, made.tokens),
        weight_step("W_O", weight, "made up, one digit each", 1),
        _rows("projected", "y = [o_1 ; … ; o_H] W_O", change, made.tokens),
        _rows("added", "x ← x + y: the change is added to the embedding", made.embedded + change, made.tokens),
    ]


def _made_up(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(rows, WIDTH, dtype=torch.float64, generator=generator).mul(5).round().div(10)


def _rows(name: str, equation: str, values: Tensor, tokens: list[str]) -> Step:
    columns = [str(column + 1) for column in range(values.shape[-1])]
    return Step(name, equation, str(list(values.shape)), [Panel("", tokens, columns, cells(values), "numbers")])
