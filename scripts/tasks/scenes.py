"""Scenes of two to four shapes with their captions: python -m scripts.tasks.scenes OUT [TRAIN].

OUT holds scene-….png of 48 × 48 pixels, train.tsv, valid.tsv and test.tsv of path, tab, caption, and boxes.json with
the box (left, top, right, bottom) of every shape, in the order of the caption: from left to right.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, FINER = 48, 4
TRIES = 40  # to find room for a shape; then the scene begins anew
COLOURS = {"red": (214, 48, 49), "green": (46, 160, 67), "blue": (42, 96, 214), "yellow": (240, 196, 25)}
SHAPES = ("circle", "square", "triangle")
SEED = 0
PARTS = {"train": 4000, "valid": 300, "test": 500}

Box = tuple[int, int, int, int]


def scene(draw: random.Random) -> tuple[Image.Image, str, list[Box]]:
    """A picture, its caption and the boxes of its shapes, which neither touch nor stand right above one another."""
    count = draw.randint(2, 4)
    boxes: list[Box] = []
    while len(boxes) < count:
        box = next((box for box in (_box(draw) for _ in range(TRIES)) if all(_apart(box, b) for b in boxes)), None)
        boxes = [] if box is None else [*boxes, box]
    boxes.sort(key=lambda box: box[0] + box[2])
    shapes = [(box, draw.choice(list(COLOURS)), draw.choice(SHAPES)) for box in boxes]
    ground = draw.randint(225, 250)
    picture = Image.new("RGB", (SIDE * FINER, SIDE * FINER), (ground,) * 3)
    pen = ImageDraw.Draw(picture)
    for box, colour, shape in shapes:
        _drawn(pen, box, COLOURS[colour], shape)
    caption = ", ".join(f"{colour} {shape}" for _, colour, shape in shapes)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), caption, [box for box, _, _ in shapes]


def _box(draw: random.Random) -> Box:
    size = draw.randint(9, 13)
    left, top = draw.randint(1, SIDE - size - 1), draw.randint(1, SIDE - size - 1)
    return left, top, left + size, top + size


def _apart(a: Box, b: Box) -> bool:
    touch = a[0] < b[2] + 2 and b[0] < a[2] + 2 and a[1] < b[3] + 2 and b[1] < a[3] + 2
    return not touch and abs((a[0] + a[2]) - (b[0] + b[2])) >= 10


def _drawn(pen: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], shape: str) -> None:
    left, top, right, bottom = (side * FINER for side in box)
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), fill=colour)
    else:
        pen.polygon([((left + right) // 2, top), (right, bottom), (left, bottom)], fill=colour)


def main(out: Path, train: int) -> None:
    """Write every part."""
    out.mkdir(parents=True, exist_ok=True)
    draw, boxes = random.Random(SEED), {}
    for part, count in {**PARTS, "train": train}.items():
        lines = []
        for number in range(count):
            picture, caption, where = scene(draw)
            name = f"{part}-{number:05d}.png"
            picture.save(out / name)
            lines.append(f"{name}\t{caption}\n")
            boxes[name] = where
        (out / f"{part}.tsv").write_text("".join(lines))
    (out / "boxes.json").write_text(json.dumps(boxes) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else PARTS["train"])
