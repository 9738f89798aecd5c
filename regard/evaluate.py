"""What a mechanism means, step by step on a tile: prepared inputs, scores, weights, output. All of it plain torch."""

from __future__ import annotations

from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, Tile, require_positions, without_invalid
from regard.mechanism import Fits, Mechanism, WeightKind


def prepared(mechanism: Mechanism, x: Inputs) -> Inputs:
    """The inputs after every prepare part, in order; what invalid keys hold is replaced by zeros first."""
    if mechanism.prepare:
        x = without_invalid(x)
    for prepare in mechanism.prepare:
        x = prepare(x)
    for part in (*mechanism.score, mechanism.normaliser, *mechanism.adjust, mechanism.mix):
        if getattr(part, "reads_positions", False):
            require_positions(x, type(part).__name__)
        if isinstance(part, Fits):
            part.check(x)
    return x


def adjusted(mechanism: Mechanism, weights: Tensor, tile: Tile) -> Tensor:
    """The weights after every adjust but those that are noise of training."""
    for adjust in mechanism.adjust:
        if not getattr(adjust, "training_noise", False):
            weights = adjust(weights, tile)
    return weights


def weights_of(mechanism: Mechanism, tile: Tile, allowed: Tensor | None) -> Tensor:
    """The exact weights [B,H',rows,keys] of whole rows: scores, normaliser, adjusts. allowed: bool, None for all."""
    return adjusted(mechanism, mechanism.normaliser(scores(mechanism, tile), allowed, tile.where), tile)


def mixed(mechanism: Mechanism, weights: Tensor, tile: Tile) -> Tensor:
    """The output of a tile from its adjusted weights, the noise of training applied first. [B,H',Tq,Dv]."""
    assert mechanism.mix is not None
    for adjust in mechanism.adjust:
        if getattr(adjust, "training_noise", False):
            weights = adjust(weights, tile)
    return mechanism.mix(weights, tile)


def weight_kind(mechanism: Mechanism) -> WeightKind:
    """What the weights that are shown are: the last adjust that changes their kind decides, else the normaliser."""
    kind = mechanism.normaliser.kind
    for adjust in mechanism.adjust:
        if not getattr(adjust, "training_noise", False):
            kind = getattr(adjust, "kind", kind)
    return kind


def scores(mechanism: Mechanism, tile: Tile) -> Tensor:
    """All score terms of a tile, applied in order. [B,H,Tq,Tk]."""
    total: Tensor | None = None
    for term in mechanism.score:
        total = term(total, tile)
    if total is None:
        raise UserError(f"mechanism {mechanism.name!r} has no score term; give at least one, such as Dot()")
    return total
