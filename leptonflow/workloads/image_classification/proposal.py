"""What `init` proposes for a source of images: the input, from their sizes and colours, and the rest of the YAML.

What does not belong here: which files the source has and which classes, and how the YAML is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from leptonflow.workloads import proposed_epochs
from leptonflow.workloads.base import Proposal

Shape = tuple[int, int, int]

LOOK: Shape = (64, 64, 3)  # an input that shows every image
DEFAULT: Shape = (32, 32, 3)
SIDES = (32, 48, 64, 96, 128)

SOURCES = """\
# SOURCE is a folder with one folder per class, arrays such as X.npy and y.npy, or a table (.csv, .tsv, .jsonl or
# .parquet) with a path column and a label column."""
SECTION = """\
# Height, width, channels (1: grey, 3: colour). Images of any size are converted and resized to this.{why}
input: [{height}, {width}, {channels}]"""
MODEL = """\
# A small CNN: one 3x3 convolution per width, then a dense layer. Or your own: {{function: my_model:build}},
# where build(input, classes) returns a Keras model and my_model.py lies beside this file.
model: {{filters: {filters}, dense: 64, dropout: 0.0}}"""
TRAINING = """\
{why}training: {{epochs: {epochs}, batch_size: 32, folds: 5, seed: 0, optimizer: adam, learning_rate: 0.001}}"""
EPOCHS, STEPS = 10, 300  # the usual number, and the steps that a fit has at least, where 100 epochs allow it
BASELINE = """\
  # Better on the holdout than always predicting the largest class, and than a logistic regression on 8 x 8 grey
  # pixels. A network that is not is not worth its cost."""


def propose(facts: Sequence[Mapping[str, Any]], count: int, columns: tuple[str, ...], label: str | None) -> Proposal:
    """facts: the metadata of the images that were looked at."""
    sizes = Counter((fact["width"], fact["height"]) for fact in facts)
    (height, width, channels), why = _input(facts, sizes) if facts else (DEFAULT, None)
    shape, epochs = f"[{height}, {width}, {channels}]", proposed_epochs.propose(count, 32, EPOCHS, STEPS)
    return Proposal(
        told=(*_told(facts, sizes), ("input", f"{shape}: {why or 'no image could be read'}"), *epochs.told),
        seen={"sizes": [[wide, high, number] for (wide, high), number in sizes.most_common(20)]},
        input=[height, width, channels],
        why=why,
        kind="an image classifier",
        sources=SOURCES,
        section=SECTION.format(
            height=height, width=width, channels=channels, why=f"\n# Proposed: {why}." if why else ""
        ),
        model=MODEL.format(filters=_filters(min(height, width))),
        training=TRAINING.format(epochs=epochs.number, why=epochs.comment),
        baseline=BASELINE,
    )


def _told(facts: Sequence[Mapping[str, Any]], sizes: Counter[tuple[int, int]]) -> tuple[tuple[str, str], ...]:
    if not facts:
        return ()
    colours = Counter("colour" if fact["channels"] == 3 else "grey" for fact in facts)
    formats = Counter(str(fact["format"]) for fact in facts)
    (width, height), count = sizes.most_common(1)[0]
    others = f", {len(sizes) - 1} other sizes" if len(sizes) > 1 else ""
    kinds = ", ".join(f"{n} {kind}" for kind, n in (*colours.most_common(), *formats.most_common()))
    return (("images", f"{len(facts)} inspected: {count} of {width} x {height}{others}; {kinds}"),)


def _input(facts: Sequence[Mapping[str, Any]], sizes: Counter[tuple[int, int]]) -> tuple[Shape, str]:
    """The input shape that is proposed, and why."""
    channels = 3 if any(fact["channels"] == 3 for fact in facts) else 1
    colour = "in colour" if channels == 3 else "all grey"
    (width, height), count = sizes.most_common(1)[0]
    if count > len(facts) / 2 and min(width, height) >= 8 and max(width, height) <= SIDES[-1]:
        why = f"{count} of {len(facts)} inspected images are {width} wide and {height} high, {colour}"
        return (height, width, channels), why
    middle = median(min(size) for size in sizes.elements())
    side = min(max((side for side in SIDES if side <= middle), default=SIDES[0]), LOOK[0])
    return (side, side, channels), (
        f"the median of the shorter sides is {middle:g} pixels, {colour}; a larger input shows more and takes longer"
    )


def _filters(side: int) -> list[int]:
    """The widths of a network that an input with this shorter side, 8 or more, has room for."""
    return [32, 64, 64] if side >= 18 else [32, 64]
