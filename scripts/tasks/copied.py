"""How a summariser copies: python -m scripts.tasks.copied MODEL DATA [COUNT].

DATA is what scripts.tasks.reports wrote; COUNT reports of its test part are summed up. Prints the share of summaries
with every name and number right, and how much of the attention lies on a copied word while its pieces are written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from regard.hf.see import look
from regard.seq2seq.directory import opened

COPIED = re.compile(r"[A-Z]\w+|\d+")  # a name or a number
LONGEST = 60  # pieces of a summary


def main(model: str, data: Path, count: int) -> None:
    """Print the figures."""
    loaded = opened(model)
    lines = [line.split("\t") for line in (data / "test.tsv").read_text().splitlines()[:count]]
    right, masses = 0, []
    for report, summary in lines:
        trace = look(loaded, report, watch=(), keep="qk", max_new_tokens=LONGEST)
        answer = trace.answer
        assert answer is not None
        right += COPIED.findall(answer.text) == COPIED.findall(summary)
        layer = trace.layers[-1]
        weights = trace.weights(layer, 0)
        source = _words(trace.axes[layer.key_axis].text[0])
        for word, slots in _words([piece.text for piece in answer.pieces]):
            keys = [key for other, its in source if other == word for key in its]
            rows = [answer.pieces[slot].slot for slot in slots]
            masses += [float(weights[row, keys].sum()) for row in rows] if keys else []
    print(f"every name and number right {right / len(lines):.4f} of {len(lines)}")
    print(f"mass on the copied word: mean {sum(masses) / max(len(masses), 1):.4f} of {len(masses)} pieces")
    print(f"pieces with at least 0.8 of their mass there: {sum(m >= 0.8 for m in masses) / max(len(masses), 1):.4f}")


def _words(pieces: Sequence[str]) -> list[tuple[str, Sequence[int]]]:
    """The names and numbers that pieces spell, each with the pieces that it is made of."""
    owner = [slot for slot, piece in enumerate(pieces) for _ in piece]
    return [(hit[0], sorted(set(owner[hit.start() : hit.end()]))) for hit in COPIED.finditer("".join(pieces))]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 500)
