"""Heads that do something one can name, with a sentence on what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regard.seeing.trace import Trace

MOST_HEADS = 6


@dataclass(frozen=True)
class Kind:
    """A kind of head: the statistic that tells it, from which score on, and what such a head does."""

    label: str
    name: str
    from_score: float
    sentence: str


KINDS = (
    Kind(
        "induction", "induction", 0.4,
        "On a token that came before, it looks at what followed it then, so that the model can go on as it did.",
    ),
    Kind("duplicate", "duplicate token", 0.4, "It looks at earlier copies of the token it stands on."),
    Kind(
        "previous", "previous token", 0.4,
        "It looks at the token just before, and so tells each token what it follows.",
    ),
    Kind(
        "sink", "sink", 0.5,
        "It leaves most of its mass on the first tokens: a place to look when there is nothing to fetch.",
    ),
    Kind("special", "special tokens", 0.5, "It looks at special tokens, such as separators, more than at the text."),
    Kind("received", "one key for all", 0.5, "Most of its mass goes to one token, whichever token looks."),
)  # fmt: skip


def finds(trace: Trace, batch: int = 0) -> list[dict[str, Any]]:
    """[{label, name, sentence, from, heads: [{layer (its place), head, score}]}]: kinds that some head clearly is.

    The highest scores first, at most six heads of a kind. Kinds whose statistic was not watched are left out.
    """
    told = []
    for kind in KINDS:
        scores = [
            {"layer": place, "head": head, "score": float(layer.summaries[kind.label][batch, at])}
            for place, layer in enumerate(trace.layers)
            if kind.label in layer.summaries
            for at, head in enumerate(layer.heads)
        ]
        clear = sorted((x for x in scores if x["score"] >= kind.from_score), key=lambda x: -float(x["score"]))
        if clear:
            told.append(
                {"label": kind.label, "name": kind.name, "sentence": kind.sentence, "from": kind.from_score}
                | {"heads": clear[:MOST_HEADS], "count": len(clear)}
            )
    return told
