"""Mechanisms of the catalogue as programs: from the words' embeddings to weights and output, for each number of words.

The inputs are those of `regard explain`: the same made-up embeddings and projections, so that the page's numbers are
its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import Tensor

from regard.core import ranges
from regard.errors import UserError
from regard.evaluate import mixed, prepared, weights_of
from regard.explain import example
from regard.inputs import Inputs
from regard.lesson.record import Program, Recorder, recorded
from regard.mechanism import Mechanism
from regard.parts import select, sparse
from regard.protocol import Attention, NotObservable
from regard.run import compose, reference
from regard.zoo import Card


@dataclass(frozen=True, eq=False)
class Recorded:
    """A mechanism on so many words. keys: other words that it looks at, None for the words themselves; refused: why it
    cannot be computed on these, else None; unobservable: why there are no weights, else None."""

    program: Program | None
    keys: list[str] | None
    refused: str | None = None
    unobservable: str | None = None


def of_card(card: Card, words: int) -> Recorded:
    """The mechanism on any `words` words."""
    tokens = [f"word{place}" for place in range(words)]
    try:
        keys = example.of_card(card, tokens).key_tokens
        embeddings = example.embedded(tokens)
        recorder, why = Recorder(), []

        def compute(x: Tensor) -> dict[str, Tensor]:
            made = example.of_card(card, tokens, lambda asked: x if asked == tokens else example.embedded(asked))
            results, reason = _computed(made.attention, made.x)
            why.append(reason)
            return results

        with _restated(recorder):
            program = recorded(compute, {"x": embeddings}, recorder)
    except (UserError, ValueError) as error:
        return Recorded(None, None, refused=str(error))
    return Recorded(program, None if keys == tokens else keys, unobservable=why[0])


def _computed(attention: Attention, x: Inputs) -> tuple[dict[str, Tensor], str | None]:
    """weights [1,H,Tq,Tk], the pairs that are visible [1,H,Tq,Tk] and output [1,H,Tq,Dv], each where there is one; and
    why there are no weights."""
    if isinstance(attention, Mechanism):
        return _of_mechanism(attention, x), None
    results, why = {"output": compose.attend(attention, x, "reference")}, None
    try:
        results["weights"] = compose.weights(attention, x)
    except NotObservable as error:
        why = str(error)
    return results, why


def _of_mechanism(mechanism: Mechanism, x: Inputs) -> dict[str, Tensor]:
    """As the reference computes it."""
    x = prepared(mechanism, x)
    tile = reference.whole(x)
    allowed = reference.allowed_cells(mechanism, x, tile)
    results = {"weights": weights_of(mechanism, tile, allowed)}
    if allowed.shape[1] in (1, results["weights"].shape[1]):
        results["visible"] = allowed.expand(results["weights"].shape)
    if mechanism.mix is not None:
        results["output"] = mixed(mechanism, results["weights"], tile)
    return results


@contextmanager
def _restated(recorder: Recorder) -> Iterator[None]:
    """While a program is recorded: searches whose steps depend on values are one step each, and cells that are chosen
    by content stay cells, not runs of them."""

    def threshold(z: Tensor, power: Tensor) -> Tensor:
        return recorder.restate("entmax_threshold", search, z=z, power=power)

    def encode(strip: Any, rows: int, *rest: Any, **more: Any) -> Any:
        return _Cells(strip(0, rows))

    def narrowed(x: Any, seen: Any) -> Any:
        if isinstance(seen, _Cells):
            return x.replace(allowed=seen) if x.allowed is None else narrow(x, encoded(seen))
        return narrow(x, seen)

    def encoded(cells: _Cells) -> Any:
        flags = cells.flags
        return encode_runs(lambda begin, end: flags[:, :, begin:end], flags.shape[2], flags.shape[3], 1, max_runs=None)

    search, narrow, encode_runs = sparse._threshold, select.narrowed, ranges.encode
    with (
        mock.patch.object(sparse, "_threshold", threshold),
        mock.patch.object(select.ranges, "encode", encode),
        mock.patch.object(select, "narrowed", narrowed),
    ):
        yield


@dataclass(frozen=True, eq=False)
class _Cells:
    """Visible pairs as flags [B,H,Tq,Tk], in the place of Ranges."""

    flags: Tensor

    def dense(self) -> Tensor:
        return self.flags
