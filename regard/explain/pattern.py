"""What a mechanism can attend to: a picture of visible and used pairs, and how many pairs are read as n grows."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor

from regard.composite import ByHead, Sum
from regard.evaluate import prepared
from regard.explain.record import Panel, Step
from regard.explain.steps import cells
from regard.inputs import Inputs, inputs
from regard.mechanism import Mechanism, single
from regard.parts.masks import And, Blocks, Documents, Not, Or, RandomBlocks
from regard.parts.relative import Span
from regard.protocol import Attention
from regard.run import reference

LENGTHS = (32, 128, 512)


def pattern(attention: Attention, x: Inputs) -> Step:
    """Which pairs are hidden (0), visible without weight (1) and visible with weight (2), for these inputs."""
    panels = _panels(attention, x)
    return Step("pattern", "", "", panels, "queries down, keys across")


@singledispatch
def _panels(attention: Attention, x: Inputs, prefix: str = "") -> list[Panel]:
    flags = _flags(attention, x)
    differ = not bool((flags == flags[:, :1]).all())
    heads = range(min(flags.shape[1], 4) if differ else 1)
    rows, columns = (_numbers(size) for size in flags.shape[2:])
    titles = [f"{prefix}head {head + 1}" if differ else prefix.rstrip(", ") for head in heads]
    return [
        Panel(title, rows, columns, cells(flags[0, head]), "flags") for title, head in zip(titles, heads, strict=True)
    ]


@_panels.register
def _of_branches(attention: Sum, x: Inputs, prefix: str = "") -> list[Panel]:
    return [p for branch in attention.branches for p in _panels(branch, x, f"{branch.name}, ")][:4]


@_panels.register
def _of_heads(attention: ByHead, x: Inputs, prefix: str = "") -> list[Panel]:
    panels: list[Panel] = []
    for part, mechanism in attention.parts:
        first, _, _ = part.indices(x.q.shape[1])
        panels += _panels(mechanism, x, f"head {first + 1}, {mechanism.name}, ")[:1]
    return panels[:4]


@singledispatch
def _flags(attention: Attention, x: Inputs) -> Tensor:
    """[1,H,Tq,Tk] of 0, 1 and 2: as far as can be told of any attention, the past, or everything."""
    every = 2 * torch.ones(1, 1, x.q.shape[2], x.k.shape[2], dtype=x.q.dtype)
    return every.tril() if attention.is_causal else every


@_flags.register
def _flags_of_mechanism(attention: Mechanism, x: Inputs) -> Tensor:
    made = prepared(attention, x)
    tile = reference.whole(made)
    weights = reference.attend(attention, x)[1]
    allowed = reference.allowed_cells(attention, made, tile).expand(1, made.q.shape[1], *weights.shape[2:])
    allowed = allowed[:, : weights.shape[1]]
    return allowed + (weights != 0).to(weights.dtype) * allowed


def _numbers(size: int) -> list[str]:
    return [str(index) for index in range(size)]


def pairs(
    attention: Attention, x: Inputs, made: Callable[[int], Attention] | None = None
) -> list[tuple[int, int]] | None:
    """(n, pairs that n tokens read in one head) where the mask alone decides; None where content or tensors do.

    x: inputs that the attention takes, of any length. made: the attention for n tokens, where its parameters follow n.
    """
    if not isinstance(attention, Mechanism) or _decided_elsewhere(attention, x):
        return None
    return [(n, _visible(single(made(n), "pairs are counted") if made else attention, n)) for n in LENGTHS]


def _decided_elsewhere(mechanism: Mechanism, x: Inputs) -> bool:
    """Whether the mask holds tensors, or a prepare chooses among the keys or makes others of them."""
    if _held(mechanism.mask):
        return True
    made = prepared(mechanism, x)
    return made.allowed is not None or made.key_axis == "slots" or made.k.shape[2] != x.k.shape[2]


def _held(mask: object) -> bool:
    if isinstance(mask, And | Or):
        return _held(mask.left) or _held(mask.right)
    return _held(mask.part) if isinstance(mask, Not) else isinstance(mask, Documents | Blocks | RandomBlocks | Span)


def _visible(mechanism: Mechanism, n: int) -> int:
    """Pairs that the mask allows, on average over two heads."""
    where = inputs(torch.zeros(1, 2, n, 1), torch.zeros(1, 2, n, 1)).tile(slice(0, n), slice(0, n)).where
    seen = mechanism.mask(where.batch, where.head, where.query, where.key)
    return int(seen.expand(1, seen.shape[1], n, n).sum()) // seen.shape[1]
