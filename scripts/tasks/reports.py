"""Reports of fixed kinds with names and numbers, questions on them and summaries: python -m scripts.tasks.reports OUT.

OUT holds {train,valid,test}.json of SQuAD's format and {train,valid,test}.tsv of report, tab, summary. Names are made
of syllables, so that those of the test part stand in no other.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

SEED = 0
PARTS = {"train": 3000, "valid": 200, "test": 500}
FIRST, MIDDLE, LAST = ("Ka", "Lo", "Mi", "Ru", "Sa", "Te", "Vo", "Be", "Do"), ("ri", "na", "lu", "mo", "se"), (
    "n", "ra", "ta", "lis", "dor", "vik", "mar",
)  # fmt: skip
TEAMS = ("Reds", "Blues", "Rovers", "Hawks", "Lions", "United")
GOODS = ("apples", "chairs", "lamps", "bricks", "books")


def name(draw: random.Random) -> str:
    """A name that nobody has."""
    return draw.choice(FIRST) + "".join(draw.choice(MIDDLE) for _ in range(draw.randint(1, 2))) + draw.choice(LAST)


def report(draw: random.Random) -> tuple[str, str, list[tuple[str, str]]]:
    """A report, its summary, and questions with their answers, each of which stands in the report once."""
    place, one, two = name(draw), name(draw), name(draw)
    while len({place, one, two}) < 3:
        place, one, two = name(draw), name(draw), name(draw)
    many, few = draw.sample(range(11, 99), 2)
    if draw.random() < 0.5:
        team, other = draw.sample(TEAMS, 2)
        text = (
            f"The {team} met the {other} in {place} on a {draw.choice(('wet', 'cold', 'bright'))} evening. "
            f"{one} scored {many} points, and the keeper {two} held {few} shots. The {team} won."
        )
        asked = [("Where did they meet?", place), ("Who scored?", one), ("How many points were scored?", str(many))]
        return text, f"{one} scored {many} points for the {team} in {place}.", [*asked, ("Who was the keeper?", two)]
    goods = draw.choice(GOODS)
    text = (
        f"A ship from {place} brought {many} crates of {goods} after {few} days at sea. Its captain {one} sold them to "
        f"the merchant {two}, who paid at once."
    )
    asked = [("Where did the ship come from?", place), ("Who was the captain?", one), ("Who bought them?", two)]
    return text, f"{one} of {place} sold {many} crates of {goods} to {two}.", [
        *asked, ("How many crates were there?", str(many)),
    ]  # fmt: skip


def main(out: Path) -> None:
    """Write every part."""
    out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(SEED)
    for part, count in PARTS.items():
        paragraphs, lines = [], []
        for number in range(count):
            text, summary, asked = report(draw)
            question, answer = draw.choice(asked)
            found = {"text": answer, "answer_start": text.index(answer)}
            qa = {"id": f"{part}-{number}", "question": question, "answers": [found]}
            paragraphs.append({"context": text, "qas": [qa]})
            lines.append(f"{text}\t{summary}\n")
        plain = {"version": "1.1", "data": [{"title": part, "paragraphs": paragraphs}]}
        (out / f"{part}.json").write_text(json.dumps(plain) + "\n")
        (out / f"{part}.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
