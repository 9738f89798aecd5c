"""The reference: every part of a mechanism, dense, in order. Dull on purpose; it defines what the others must give."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.core.layout import Packed
from regard.errors import UserError
from regard.evaluate import mixed, prepared, scores, weights_of
from regard.inputs import Inputs, Tile, require_positions, without_invalid
from regard.lower import reads_positions, visible
from regard.mechanism import Mechanism
from regard.run.backend import UNWATCHED, Backend, Composition
from regard.run.documents import dense_inputs
from regard.run.output import Output


def attend(mechanism: Mechanism, x: Inputs) -> tuple[Tensor | None, Tensor]:
    """Output [B,H,Tq,Dv] (None without a mix) and weights [B,H,Tq,Tk], both dense: memory grows as Tq · Tk."""
    x = prepared(mechanism, x)
    tile = whole(x)
    allowed = allowed_cells(mechanism, x, tile)
    weights = weights_of(mechanism, tile, allowed)
    return None if mechanism.mix is None else mixed(mechanism, weights, tile), weights


def scores_of(mechanism: Mechanism, x: Inputs, rows: slice, keys: slice, hide: bool) -> Tensor:
    """The score terms [B,H,rows,keys] of a rectangle, -inf where a query may not see a key if `hide`."""
    x = without_invalid(prepared(mechanism, x))
    rows, keys = (slice(*part.indices(n)) for part, n in ((rows, x.q.shape[2]), (keys, x.k.shape[2])))
    tile = x.tile(rows, keys)
    whole_scores = scores(mechanism, tile)
    if not hide:
        return whole_scores
    allowed = visible(mechanism, x).rows(rows.start, rows.stop).dense(keys.start, keys.stop)
    return whole_scores.masked_fill(~allowed, -torch.inf)


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


def walk(call: Composition, watch: object, output: bool) -> Output:
    """The output of a call; a packed one a document at a time."""
    if call.mechanism.mix is None:
        raise UserError(f"{call.mechanism.name} has no output: its weights are the result; ask for regard.weights")
    if not isinstance(call.x.layout, Packed):
        return Output(attend(call.mechanism, call.x)[0])
    outs = [attend(call.mechanism, document)[0] for _, _, document in dense_inputs(call.x)]
    return Output(torch.cat([out for out in outs if out is not None], 2) if outs else call.x.q[..., :0])


REFERENCE = Backend(
    "reference", "everything in torch, densely; it defines the answer", (UNWATCHED,), walk, closed=False
)
