"""The Mechanism: what one kind of attention computes, as a composition of small parts.

    x  = prepare(x)                     once per token: project, rotate, hash
    s  = score(q_i, k_j)                terms applied in order, left to right
    s  is defined only where mask(i, j) may attend
    a  = normaliser(s)                  a row of scores -> a row of weights
    a  = adjust(a)                      weights -> weights: dropout, talking heads
    o  = mix(a, v)                      linear in the weights

A part is a frozen record whose call is its meaning, in torch, for a slice (Tile) of the inputs; anyone may write one.
A part that also restates itself in the closed vocabulary of core/ (`core`) runs on the fast backends.

Dimensions, once for the whole project: B batch, H query heads, G key-value heads (H % G == 0), Tq queries, Tk keys,
Dk key width, Dv value width. Dense maths is [B, heads, tokens, width].
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, Tile, Where
from regard.protocol import Engine

WeightKind = Literal["distribution", "subunit", "nonnegative", "signed"]


class Prepare(Protocol):
    """Once over the whole call, O(tokens)."""

    def __call__(self, x: Inputs) -> Inputs: ...


class Score(Protocol):
    """One term. The first of a mechanism receives scores=None. Returns [B,H,Tq,Tk], at least float32, never -inf.

    An optional attribute `scratch_per_pair` (numbers needed per query-key pair, default 1) bounds a strip's rows.
    Any part but a mask or a prepare says with `reads_positions = True` that its answer depends on positions. A term
    whose core form leaves out what is the same for a whole row says `core_omits_row_constant = True`.

    `core(x)`, optional here and for normalisers and mixes, restates the part in core records; None: not for these
    inputs. Where that form reads neither queries, keys nor values, `depends_on_shapes_alone = True` says so, and a plan
    can be used again for other tensors.
    """

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor: ...


class Mask(Protocol):
    """Whether a query position may attend a key position: bool, broadcast from the indices.

    Optional attributes: `reads_positions = False`, the answer does not depend on where queries are; `is_causal = True`,
    no query sees a later position.
    An optional method `ranges(x)` states the visible intervals at once; None: not for these inputs.
    """

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor: ...


class Normaliser(Protocol):
    """Whole rows of scores -> weights. allowed: bool, broadcastable to scores, or None for all allowed.

    Excluded cells get weight 0; a row with nothing allowed gets zeros.
    """

    @property
    def kind(self) -> WeightKind: ...

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor: ...


class Adjust(Protocol):
    """Weights [B,H,Tq,Tk] -> weights [B,H',Tq,Tk].

    Optional attributes: `kind`, what the weights are afterwards; `training_noise = True` (dropout):
    such a part acts on the output, and the weights that are shown are those before it.
    """

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor: ...


class Mix(Protocol):
    """Weights [B,H',Tq,Tk] and the tile's values -> [B,H',Tq,Dv]. Law: linear in the weights."""

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor: ...


@runtime_checkable
class Fits(Protocol):
    """A score or normaliser that can tell whether its tensors fit the prepared inputs; raises UserError if not."""

    def check(self, x: Inputs) -> None: ...


@dataclass(frozen=True, eq=False)
class Mechanism:
    """A kind of attention. name: its standard name; source: paper and equation."""

    name: str
    source: str
    score: tuple[Score, ...]
    mask: Mask
    normaliser: Normaliser
    prepare: tuple[Prepare, ...] = ()
    adjust: tuple[Adjust, ...] = ()
    mix: Mix | None = None

    def replace(self, **parts: Any) -> Mechanism:
        """The same mechanism with some parts exchanged."""
        return replace(self, **parts)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a part holds, by path."""
        return dict(_tensors_of(self, ""))

    @property
    def is_causal(self) -> bool:
        return bool(getattr(self.mask, "is_causal", False))

    def attend(self, x: Inputs, engine: Engine) -> Tensor:
        return engine.output(self, x)

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        return engine.rectangle(self, x, rows, keys)

    def masked(self, mask: Any) -> Mechanism:
        return self.replace(mask=mask & self.mask)

    def composition(self) -> tuple[tuple[str, Any], ...]:
        return (
            *(("prepare", part) for part in self.prepare),
            *(("score", part) for part in self.score),
            ("mask", self.mask),
            ("normaliser", self.normaliser),
            *(("adjust", part) for part in self.adjust),
            ("mix", self.mix),
        )

    def __str__(self) -> str:
        return self.name


def single(attention: Any, why: str) -> Mechanism:
    """An attention that is one Mechanism, as it is. why: a clause that says what needs one, for the error otherwise."""
    if isinstance(attention, Mechanism):
        return attention
    raise UserError(
        f"{why}, and {attention.name} is a {type(attention).__name__}, which has no row of scores of its own; give a "
        "single mechanism"
    )


def _tensors_of(record: Any, path: str) -> list[tuple[str, Tensor]]:
    if isinstance(record, Tensor):
        return [(path, record)]
    if isinstance(record, tuple):
        return [
            found for i, item in enumerate(record) for found in _tensors_of(item, f"{path}.{i}" if path else str(i))
        ]
    if is_dataclass(record) and not isinstance(record, type):
        parts = [(f.name, getattr(record, f.name)) for f in fields(record)]
        return [found for name, item in parts for found in _tensors_of(item, f"{path}.{name}" if path else name)]
    return []
