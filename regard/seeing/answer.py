"""What a model's head says of one sequence, and the rows of attention that said it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Choice:
    """What could be said, and its probability; None where the head's number is none (a regression)."""

    text: str
    probability: float | None
    value: float | None = None


@dataclass(frozen=True)
class Piece:
    """A part of the answer. slot: the row of the answer's axis that decided it; label: a token's tag; begin, end:
    seconds of a sound."""

    text: str
    slot: int | None = None
    probability: float | None = None
    label: str = ""
    begin: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Answer:
    """What the head says.

    task: as the hub names it ("text-classification"), "" for a model without a head that is known. text: the answer.
    confidence: a probability, of several tokens their geometric mean. choices: the likeliest answers (of a text: of
    its first token), best first. axis, pieces: the rows that decided it. note: why there is no answer, or what else to
    know.
    """

    task: str = ""
    text: str = ""
    confidence: float | None = None
    choices: tuple[Choice, ...] = ()
    pieces: tuple[Piece, ...] = ()
    axis: str | None = None
    note: str = ""

    @property
    def rows(self) -> list[int]:
        """The slots along `axis` that decided the answer, in its order."""
        return list(dict.fromkeys(piece.slot for piece in self.pieces if piece.slot is not None))

    def on(self, axis: str | None) -> Answer:
        """The same with its rows along this axis."""
        return replace(self, axis=axis)

    def json(self) -> dict[str, Any]:
        """Plain JSON, without what is empty."""
        plain = asdict(self)
        for name in ("choices", "pieces"):
            plain[name] = [{key: value for key, value in each.items() if _says(value)} for each in plain[name]]
        return plain

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Answer:
        """The answer of `json`."""
        choices = tuple(Choice(**{"probability": None, **each}) for each in plain["choices"])
        return Answer(**{**plain, "choices": choices, "pieces": tuple(Piece(**each) for each in plain["pieces"])})


def _says(value: object) -> bool:
    return value is not None and value != ""
