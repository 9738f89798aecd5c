"""The worked example, step by step: each step calls one part of the mechanism and shows what it made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regard.evaluate import prepared
from regard.explain import around
from regard.explain.grid import cells
from regard.explain.record import Kind, Panel, Step
from regard.inputs import Inputs, Tile, without_invalid
from regard.mechanism import Mechanism
from regard.parts.masks import And, Band, FirstKeys, Full, Not, Or
from regard.parts.normalisers import Softmax
from regard.parts.prepare import KeyHeads
from regard.parts.scores import Dot
from regard.run import reference


@dataclass(frozen=True)
class Labels:
    """What rows and columns of pair matrices are called, and which heads are shown (None: all, at most four)."""

    queries: list[str]
    keys: list[str]
    all_heads: bool = False
    prefix: str = ""

    def shown(self, count: int) -> range:
        return range(min(count, 4) if self.all_heads else 1)


def words(part: Any) -> str:
    """A part in its text form where it has one, else PositiveFeatures as "positive features"."""
    if type(part).__str__ is not object.__str__:
        with suppress(ValueError):
            return str(part)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(part).__name__).lower()


def meaning(part: Any) -> str:
    """The first sentence of a part's documentation, which says its equation; empty where it has none of its own."""
    if isinstance(part, Softmax) and part.sink is None:
        return "a_ij = e^{s_ij} / Σ_j e^{s_ij}, over the keys that i may see"
    if isinstance(part, Dot) and not isinstance(part.scale, Tensor):
        return "s_ij = q_i · k_j / √Dk" if part.scale is None else f"s_ij = {_times(part.scale)}q_i · k_j"
    paragraph = " ".join((type(part).__doc__ or "").split("\n\n")[0].split())
    if paragraph.startswith(f"{type(part).__name__}("):
        return ""
    return re.split(r"(?<!eq)(?<!al)\.(?:\s|$)", paragraph)[0]


def mask_meaning(mask: Any) -> str:
    """What a mask asks of the positions p_i of a query and p_j of a key."""
    if isinstance(mask, Band):
        low = "" if mask.after is None else f"{-mask.after} <= "
        high = "" if mask.before is None else f" <= {mask.before}"
        return "p_j <= p_i" if (mask.before, mask.after) == (None, 0) else f"{low}p_i - p_j{high}"
    if isinstance(mask, And | Or):
        sides = (f"({mask_meaning(side)})" for side in (mask.left, mask.right))
        return (" and " if isinstance(mask, And) else " or ").join(sides)
    if isinstance(mask, FirstKeys):
        return f"p_j < {mask.count}" + (" and p_j <= p_i" if mask.causal else "")
    return f"not ({mask_meaning(mask.part)})" if isinstance(mask, Not) else meaning(mask)


def heads_meet(mechanism: Mechanism) -> bool:
    """Whether one head's numbers cannot be followed without another's."""
    parts: tuple[Any, ...] = (*mechanism.adjust, *mechanism.score, *mechanism.prepare)
    return any(getattr(part, "mixes_heads", False) or isinstance(part, KeyHeads) for part in parts)


def per_token(name: str, equation: str, values: Tensor, rows: Sequence[str], labels: Labels, said: str = "") -> Step:
    """A step whose tensor [1,H,T,width] or [1,H,T] is a row per token."""
    wide = values[..., None] if values.ndim == 3 else values
    columns = [str(column + 1) for column in range(wide.shape[-1])]
    panels = [
        Panel(_head(head, wide.shape[1], labels), list(rows), columns, cells(wide[0, head]), "numbers")
        for head in labels.shown(wide.shape[1])
    ]
    return Step(labels.prefix + name, equation, shape(values), panels, said)


def per_pair(
    name: str, equation: str, values: Tensor, labels: Labels, kind: Kind, allowed: Tensor | None = None, said: str = ""
) -> Step:
    """A step whose tensor [1,H,Tq,Tk] is a number per query and key."""
    flags = None if allowed is None else allowed.expand(1, values.shape[1], *values.shape[2:])
    panels = [
        Panel(
            _head(head, values.shape[1], labels),
            labels.queries,
            labels.keys,
            cells(values[0, head], None if flags is None else flags[0, head]),
            kind,
        )
        for head in labels.shown(values.shape[1])
    ]
    return Step(labels.prefix + name, equation, shape(values), panels, said)


def shape(values: Tensor) -> str:
    """[heads 2, 6, 4]."""
    heads, *rest = values.shape[1:]
    return f"[{heads} {'head' if heads == 1 else 'heads'}, {', '.join(map(str, rest))}]"


def _head(head: int, count: int, labels: Labels) -> str:
    return f"head {head + 1} of {count}" if count > 1 else ""


# ---- a mechanism -----------------------------------------------------------------------------------------------------


def of_mechanism(mechanism: Mechanism, x: Inputs, labels: Labels) -> tuple[list[Step], Tensor]:
    """Every step after queries, keys and values, and the last one's whole tensor: the output, or the weights."""
    labels = replace(labels, all_heads=labels.all_heads or heads_meet(mechanism))
    steps, x, labels = _prepared(mechanism, x, labels)
    tile = reference.whole(x)
    allowed = reference.allowed_cells(mechanism, x, tile)
    found, scores = _scored(mechanism, tile, labels)
    steps += found
    if not bool(allowed.all()):
        steps.append(_masked(mechanism, scores, allowed, x, labels))
    flags = None if bool(allowed.all()) else allowed
    weights = mechanism.normaliser(scores, allowed, tile.where)
    kind: Kind = "signed" if mechanism.normaliser.kind == "signed" else "weights"
    steps.append(per_pair("weights", meaning(mechanism.normaliser), weights, labels, kind, flags))
    for part in mechanism.adjust:
        weights = part(weights, tile)
        signed = getattr(part, "kind", mechanism.normaliser.kind) == "signed"
        fits = flags is None or flags.shape[1] in (1, weights.shape[1])
        step = per_pair(
            words(part), meaning(part), weights, labels, "signed" if signed else "weights", flags if fits else None
        )
        steps.append(step)
    if mechanism.mix is None:
        return steps, weights
    out = mechanism.mix(weights, tile)
    steps.append(per_token("context", meaning(mechanism.mix), out, labels.queries, labels))
    return steps, out


def _prepared(mechanism: Mechanism, x: Inputs, labels: Labels) -> tuple[list[Step], Inputs, Labels]:
    steps: list[Step] = []
    before = without_invalid(x) if mechanism.prepare else x
    for part in mechanism.prepare:
        after = part(before)
        if after.k.shape[2] != before.k.shape[2] or after.key_axis != before.key_axis:
            labels = replace(labels, keys=[f"slot{slot + 1}" for slot in range(after.k.shape[2])])
        steps += _changes(part, before, after, labels)
        before = after
    prepared(mechanism.replace(prepare=()), before)  # the checks of positions that every engine makes
    return steps, before, labels


def _changes(part: Any, before: Inputs, after: Inputs, labels: Labels) -> list[Step]:
    found = []
    sides = {"q": ("queries", labels.queries), "k": ("keys", labels.keys), "v": ("values", labels.keys)}
    for name, (said, rows) in sides.items():
        new, old = getattr(after, name), getattr(before, name)
        if new is not old and new is not None and not (new.shape == old.shape and torch.equal(new, old)):
            if name == "q" and old is not None:
                found += around.of_part(part, old, new, labels.queries)
            found.append(per_token(f"{said}, {words(part)}", meaning(part), new, rows, labels))
    for name, extra in after.per_query.items():
        if name not in before.per_query:
            found.append(per_token(name, meaning(part), extra, labels.queries, labels))
    if after.allowed is not None and after.allowed is not before.allowed:
        flags = after.allowed.dense().to(after.q.dtype)
        heads = flags.expand(1, after.q.shape[1], *flags.shape[2:])
        found.append(per_pair(f"chosen, {words(part)}", meaning(part), 2 * heads, labels, "flags"))
    return found


def _scored(mechanism: Mechanism, tile: Tile, labels: Labels) -> tuple[list[Step], Tensor]:
    steps: list[Step] = []
    total: Tensor | None = None
    for place, term in enumerate(mechanism.score):
        scaled = isinstance(term, Dot) and not (isinstance(term.scale, float) and term.scale == 1.0)
        if place == 0 and scaled:
            steps.append(per_pair("scores", "s_ij = q_i · k_j", Dot(1.0)(None, tile), labels, "scores"))
        total = term(total, tile)
        name = ("scaled" if scaled else "scores") if place == 0 else words(term)
        equation = _scale(term, tile) if isinstance(term, Dot) else meaning(term)
        steps.append(per_pair(name, equation, total, labels, "scores"))
    assert total is not None
    return steps, total


def _scale(term: Dot, tile: Tile) -> str:
    if term.scale is None:
        return f"s_ij = q_i · k_j / √Dk,  Dk = {tile.q.shape[-1]}"
    if isinstance(term.scale, Tensor):
        return "s_ij = c_h q_i · k_j,  c = " + ", ".join(f"{c:.3g}" for c in term.scale.tolist())
    return meaning(term)


def _times(scale: float) -> str:
    return "" if scale == 1.0 else f"{scale:.3g} "


def _masked(mechanism: Mechanism, scores: Tensor, allowed: Tensor, x: Inputs, labels: Labels) -> Step:
    said = [] if isinstance(mechanism.mask, Full) else [mask_meaning(mechanism.mask)]
    said += ["only what was chosen"] if x.allowed is not None else []
    said += ["padding is left out"] if x.key_valid is not None else []
    return per_pair("masked", ";  ".join(said), scores, labels, "scores", allowed, "blank pairs are hidden")
