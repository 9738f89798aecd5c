"""The pictures of the README, drawn from the embedded model: python scripts/pictures.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

import regard
from regard.explain.build import explain
from regard.explain.image import image

SENTENCE = "The queen spoke to the king. The queen spoke to the king."


def draw(folder: Path) -> list[Path]:
    """Write see.png, maps.png, lines.png and explain.png; their paths."""
    loaded = regard.load()
    trace = regard.see(loaded.model, loaded.tokenizer, SENTENCE).words()
    names = [folder / f"{name}.png" for name in ("see", "maps", "lines", "explain")]
    trace.png(names[0])
    trace.png(names[1], shape="maps")
    trace.png(names[2], shape="lines", heads=[(1, 0), (1, 5)])
    names[3].write_bytes(image(explain("causal")))
    return names


if __name__ == "__main__":
    for path in draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
        print(path)
