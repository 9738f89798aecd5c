"""Sentences that are for or against something: python -m scripts.tasks.sentences OUT [COUNT].

OUT/sentences.tsv holds sentence, tab, "positive" or "negative". A sentence says something good or bad of a thing, with
a "not" that turns it round now and then, and words that say nothing; so that a model must find the few that count.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

SEED = 0
THINGS = ("film", "soup", "hotel", "song", "book", "garden", "train", "lesson", "coat", "play")
GOOD = ("good", "lovely", "bright", "fresh", "clever", "warm", "funny", "brilliant")
BAD = ("bad", "dull", "stale", "cold", "broken", "dreary", "awful", "boring")
BEGINNINGS = ("", "to be honest", "as my sister said", "after all that talk", "on a wet tuesday", "for once")
ENDS = ("", "and we went home by bus", "with three friends of mine", "in the old part of town", "though it rained")
MODIFIERS = ("", "very", "really", "quite", "rather")


def sentence(draw: random.Random) -> tuple[str, str]:
    """A sentence and its label."""
    positive, turned = draw.random() < 0.5, draw.random() < 0.25
    word = draw.choice(GOOD if positive != turned else BAD)
    middle = ["the", draw.choice(THINGS), draw.choice(("was", "is")), "not" if turned else "", draw.choice(MODIFIERS)]
    parts = [draw.choice(BEGINNINGS), *middle, word, draw.choice(ENDS), "."]
    return " ".join(part for part in parts if part), "positive" if positive else "negative"


def main(out: Path, count: int) -> None:
    """Write the sentences."""
    out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(SEED)
    lines = ("\t".join(sentence(draw)) + "\n" for _ in range(count))
    (out / "sentences.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3000)
