"""When one would use each mechanism, which models do, and what else it is called: as its card says, or uses.txt."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from regard.zoo import CATALOGUE


@dataclass(frozen=True)
class Use:
    """when: one sentence. models: those known for it, or where it was shown. also: other names that people look for."""

    when: str
    models: str
    also: tuple[str, ...] = ()


def _read() -> dict[str, Use]:
    lines = resources.files("regard.explain").joinpath("uses.txt").read_text("utf-8").splitlines()[1:]
    rows = ([part.strip() for part in line.split("|")] for line in lines)
    return {name: Use(when, models, tuple(filter(None, also.split(", ")))) for name, when, models, also in rows}


USES = _read() | {name: Use(c.when, c.models, c.also) for name, c in CATALOGUE.items() if c.when}


def use_of(name: str) -> Use | None:
    """What is known of a mechanism by its catalogue name."""
    return USES.get(name)
