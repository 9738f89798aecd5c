"""The reference: every part of a mechanism, dense, in order. Dull on purpose; it defines what the others must give."""

from __future__ import annotations

from torch import Tensor

from regard.evaluate import mixed, prepared, weights_of
from regard.inputs import Inputs, Tile, require_positions, without_invalid
from regard.lower import reads_positions
from regard.mechanism import Mechanism


def attend(mechanism: Mechanism, x: Inputs) -> tuple[Tensor | None, Tensor]:
    """Output [B,H,Tq,Dv] (None without a mix) and weights [B,H,Tq,Tk], both dense: memory grows as Tq · Tk."""
    x = prepared(mechanism, x)
    tile = whole(x)
    allowed = allowed_cells(mechanism, x, tile)
    weights = weights_of(mechanism, tile, allowed)
    return None if mechanism.mix is None else mixed(mechanism, weights, tile), weights


def whole(x: Inputs) -> Tile:
    """All rows and keys as one tile, with what invalid keys hold replaced by zeros, so that it cannot leak."""
    x = without_invalid(x)
    return x.tile(slice(0, x.q.shape[2]), slice(0, x.k.shape[2]))


def allowed_cells(mechanism: Mechanism, x: Inputs, tile: Tile) -> Tensor:
    """bool [B or 1, H or 1, Tq, Tk] from the mask's predicate, the mask given as data and the valid keys."""
    if reads_positions(mechanism.mask):
        require_positions(x, f"the mask {mechanism.mask}")
    where = tile.where
    allowed = mechanism.mask(where.batch, where.head, where.query, where.key)
    if x.allowed is not None:
        given = x.allowed.dense()
        allowed = allowed & given
    if x.key_valid is not None:
        valid = x.key_valid[:, None, None, :]
        allowed = allowed & valid
    return allowed
