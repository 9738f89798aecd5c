"""The Explanation: everything that a picture or a page of a mechanism shows, as a small record of plain numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["numbers", "scores", "weights", "signed", "flags"]
"""What cells are: coordinates, scores, weights of at least 0, signed weights, 0 hidden / 1 visible / 2 read."""


@dataclass(frozen=True)
class Panel:
    """One matrix with its labels. values [rows][columns]; None where a pair is hidden. title: which head, or what."""

    title: str
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    kind: Kind
    turned: bool = False  # keys run down, queries across; the last row of weights is their sum


@dataclass(frozen=True)
class Step:
    """One step of the worked example. shape: the whole tensor's, of which panels show a head or two."""

    name: str
    equation: str
    shape: str
    panels: list[Panel]
    said: str = ""


@dataclass(frozen=True)
class Part:
    """One part of the composition: slot (prepare, score, mask …), name, and its meaning in one line."""

    slot: str
    name: str
    meaning: str


@dataclass(frozen=True)
class Explanation:
    """A mechanism explained. pairs: (tokens, query-key pairs read) as the input grows; None where content decides.

    when, models: when one would use it and which models do. refused says why something is no mechanism, unobservable
    why there are no weights. home: where a module of it is.
    """

    name: str
    title: str
    family: str
    line: str
    equation: str
    source: str
    time: str
    memory: str
    attends: str
    parameters: dict[str, str]
    parts: list[Part]
    pairs: list[tuple[int, int]] | None
    pattern: Step | None
    steps: list[Step]
    tokens: list[str]
    about: str
    refused: str | None = None
    unobservable: str | None = None
    home: str | None = None
    settings: dict[int, str] = field(default_factory=dict)  # by tokens: the arguments with which pairs were counted
    when: str = ""
    models: str = ""

    def json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, rounded to six digits after the point."""
        found: dict[str, Any] = _rounded(asdict(self))
        return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) + 0.0
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
