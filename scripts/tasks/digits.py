"""scikit-learn's 1,797 handwritten digits as PNG files and lists: python -m scripts.tasks.digits OUT.

A fifth is held out for testing and a tenth for choosing among evaluations, by a fixed seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SEED = 0


def main(out: Path) -> None:
    """Write OUT/digit-….png and OUT/train.tsv, valid.tsv, test.tsv of path, tab, label."""
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    fifth, tenth = len(order) // 5, len(order) // 10
    parts = {"test": order[:fifth], "valid": order[fifth : fifth + tenth], "train": order[fifth + tenth :]}
    for name, rows in parts.items():
        lines = []
        for row in rows:
            path = f"digit-{row:04d}.png"
            Image.fromarray((digits.images[row] / 16 * 255).round().astype(np.uint8)).save(out / path)
            lines.append(f"{path}\t{digits.target[row]}\n")
        (out / f"{name}.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
