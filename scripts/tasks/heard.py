"""What a listener hears, and when: python -m scripts.tasks.heard MODEL DATA.

DATA is what scripts.tasks.digits_spoken wrote. Prints, for sequences of 3 to 7 digits and of 10 to 14, the word error
rate, and of sequences that were heard right the share of digits whose attention peaks inside the digit and the median
distance of begin and end from the truth.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from regard.cli.reading import read_input
from regard.hf.see import look
from regard.seq2seq.directory import opened
from regard.tasks.metrics import word_error_rate

LONGEST = 40


def main(model: str, data: Path) -> None:
    """Print the figures of both parts."""
    loaded = opened(model)
    times = json.loads((data / "times.json").read_text())
    for part in ("test", "long"):
        found, wanted, inside, away = [], [], [], []
        for line in (data / f"{part}.tsv").read_text().splitlines():
            name, words = line.split("\t")
            trace = look(loaded, read_input(str(data / name)), watch=(), keep="qk", max_new_tokens=LONGEST)
            answer = trace.answer
            assert answer is not None
            found.append(answer.text)
            wanted.append(words)
            if answer.text != words:
                continue
            layer = trace.layers[-1]
            tokens = trace.axes[layer.key_axis]
            each = (tokens.seconds or 0.0) / tokens.axis.length
            peaks = ((trace.weights(layer, 0).argmax(-1) + 0.5) * each).tolist()
            for piece, (begin, end) in zip(answer.pieces, times[name], strict=True):
                inside.append(begin <= peaks[piece.slot or 0] <= end)
                away += [abs((piece.begin or 0.0) - begin), abs((piece.end or 0.0) - end)]
        peaked = sum(inside) / max(len(inside), 1)
        median = statistics.median(away) if away else float("nan")
        print(f"{part}: word errors {word_error_rate(found, wanted):.4f}, {len(found)} sequences")
        print(f"  peaks inside {peaked:.4f}, times away {median:.3f} s at the median, {len(inside)} digits")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
