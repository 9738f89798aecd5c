"""How much of each shape word's attention lies on its shape: python -m scripts.tasks.looked MODEL DATA [COUNT].

DATA is what scripts.tasks.scenes wrote; COUNT pictures of its test part are read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from regard.cli.reading import read_input
from regard.hf.see import look
from regard.seq2seq.directory import opened

SHAPES = ("circle", "square", "triangle")


def main(model: str, data: Path, count: int) -> None:
    """Print the share of exact captions, and the mean and the least mass of words of shapes within box and patch."""
    loaded = opened(model)
    boxes = json.loads((data / "boxes.json").read_text())
    masses, exact = [], 0
    lines = (data / "test.tsv").read_text().splitlines()[:count]
    for line in lines:
        name, caption = line.split("\t")
        trace = look(loaded, read_input(str(data / name)), watch=(), keep="qk")
        answer = trace.answer
        assert answer is not None
        # an answer that names other shapes has no box for each word
        if answer.text.replace(" ,", ",") != caption:
            continue
        exact += 1
        layer = trace.layers[-1]
        rows, columns = trace.axes[layer.key_axis].grid or (1, 1)
        patch = loaded.model.config.patch_size
        weights = trace.weights(layer, 0)
        words = [piece for piece in answer.pieces if piece.text.strip() in SHAPES]
        for piece, (left, top, right, bottom) in zip(words, boxes[name], strict=True):
            grid = weights[piece.slot].reshape(rows, columns)
            down, across = (slice(max(a // patch - 1, 0), b // patch + 2) for a, b in ((top, bottom), (left, right)))
            masses.append(float(grid[down, across].sum()))
    print(f"exact {exact / len(lines):.4f}")
    print(f"mass of {len(masses)} shape words: mean {sum(masses) / max(len(masses), 1):.4f}")
    print(f"words with at least 0.9 of their mass there: {sum(m >= 0.9 for m in masses) / max(len(masses), 1):.4f}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 500)
