"""Ten thousand small JPEG files that a model can learn, the same bytes each time.

Each class is a shape in a colour of its own, at a random place and size, under noise; so no two files
are alike, and a few epochs reach a high but not a perfect score.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("arc", "box", "cross", "disc", "frame", "line", "ring", "star", "stripe", "triangle")
SIDE = 32


def draw(pen: ImageDraw.ImageDraw, kind: str, x: int, y: int, r: int, colour: tuple[int, int, int]) -> None:
    """One shape around (x, y) with radius r."""
    around = (x - r, y - r, x + r, y + r)
    if kind == "arc":
        pen.arc(around, 30, 240, fill=colour, width=3)
    elif kind == "box":
        pen.rectangle(around, fill=colour)
    elif kind == "cross":
        pen.line((x - r, y, x + r, y), fill=colour, width=3)
        pen.line((x, y - r, x, y + r), fill=colour, width=3)
    elif kind == "disc":
        pen.ellipse(around, fill=colour)
    elif kind == "frame":
        pen.rectangle(around, outline=colour, width=2)
    elif kind == "line":
        pen.line((x - r, y - r, x + r, y + r), fill=colour, width=3)
    elif kind == "ring":
        pen.ellipse(around, outline=colour, width=2)
    elif kind == "star":
        pen.regular_polygon((x, y, r), 4, rotation=45, outline=colour)
        pen.line((x - r, y, x + r, y), fill=colour, width=2)
    elif kind == "stripe":
        for offset in range(-r, r + 1, 4):
            pen.line((x + offset, y - r, x + offset, y + r), fill=colour, width=1)
    else:
        pen.polygon((x, y - r, x + r, y + r, x - r, y + r), fill=colour)


def write(folder: Path, count: int = 10_000, seed: int = 0) -> None:
    """Write `count` images, the classes in turn, as `<class>/image-00001.jpg`."""
    source = np.random.default_rng(seed)
    palette = [tuple(int(v) for v in source.integers(90, 256, 3)) for _ in CLASSES]
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        kind = CLASSES[number % len(CLASSES)]
        x, y = (int(v) for v in source.integers(10, 22, 2))
        colour = palette[number % len(CLASSES)]
        blurred = tuple(int(np.clip(v + d, 0, 255)) for v, d in zip(colour, source.integers(-70, 71, 3), strict=True))
        picture = Image.new("RGB", (SIDE, SIDE), tuple(int(v) for v in source.integers(0, 120, 3)))
        draw(ImageDraw.Draw(picture), kind, x, y, int(source.integers(5, 10)), (blurred[0], blurred[1], blurred[2]))
        noisy = np.asarray(picture, dtype=np.int16) + source.normal(0, 30, (SIDE, SIDE, 3)).astype(np.int16)
        file = folder / kind / f"image-{number:05d}.jpg"
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, quality=90)


def pipeline(name: str, *, folds: int = 3, epochs: int = 2) -> str:
    """The YAML of a pipeline that trains on these images; its gate lets every candidate through."""
    return f"""name: {name}
workload: image_classification
input: [{SIDE}, {SIDE}, 3]
model: {{filters: [32, 64, 64], dense: 64, dropout: 0.0}}
training: {{epochs: {epochs}, batch_size: 32, folds: {folds}, seed: 0, optimizer: adam, learning_rate: 0.001}}
gate:
  - {{rule: at_least, metric: accuracy, value: 0.05}}
"""
