"""Which class was predicted for which, as counts: what a report shows of them, and a drawing that stands alone.

Of a classification of one class per example. What does not belong here: counting (classification), and HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

MOST_CLASSES = 30  # more cells cannot be read: then the most frequent mistakes alone are shown
MOST_MISTAKES = 15
LONGEST_NAME = 14

_RIGHT, _WRONG = "rgb(37, 99, 235)", "rgb(200, 60, 40)"
_GROUND, _TEXT, _MUTED = "#ffffff", "#1b2430", "#5c6878"
_CELL, _PAD = 34, 12


class Cell(NamedTuple):
    """share: of its row, 0..1."""

    examples: int
    share: float
    right: bool


class Mistake(NamedTuple):
    """of: the examples of the true class."""

    label: str
    predicted: str
    examples: int
    of: int


@dataclass(frozen=True)
class Matrix:
    """counts[true][predicted], rows and columns in the order of the classes."""

    counts: Sequence[Sequence[int]]
    classes: Sequence[str]

    @property
    def rows(self) -> list[list[Cell]] | None:
        """The cells, or None for more classes than can be read."""
        if len(self.classes) > MOST_CLASSES:
            return None
        return [
            [Cell(count, round(count / max(1, sum(row)), 3), t == p) for p, count in enumerate(row)]
            for t, row in enumerate(self.counts)
        ]

    @property
    def mistakes(self) -> list[Mistake]:
        """The most frequent first, MOST_MISTAKES at most."""
        found = [
            Mistake(self.classes[t], self.classes[p], count, sum(row))
            for t, row in enumerate(self.counts)
            for p, count in enumerate(row)
            if t != p and count
        ]
        return sorted(found, key=lambda mistake: -mistake.examples)[:MOST_MISTAKES]

    def svg(self) -> str:
        """An SVG file: the deeper the colour, the larger the share of its row. "" for more classes than can be read.

        Names come from outside: they are text, and cut to a readable length.
        """
        count = len(self.classes)
        if not 0 < count <= MOST_CLASSES:
            return ""
        names = [_shown(name) for name in self.classes]
        longest = max(len(name) for name in names)
        left = top = _PAD + 7.5 * longest + 24
        side = _CELL * count
        parts = [
            f'<rect width="100%" height="100%" fill="{_GROUND}"/>',
            f'<text x="{left + side / 2:g}" y="16" text-anchor="middle" class="said">predicted</text>',
            f'<text transform="translate(16 {top + side / 2:g}) rotate(-90)" text-anchor="middle" class="said">true'
            "</text>",
        ]
        for number, name in enumerate(names):
            at = _CELL * (number + 0.5)
            parts.append(f'<text x="{left - 8:g}" y="{top + at + 4:g}" text-anchor="end">{name}</text>')
            parts.append(f'<text transform="translate({left + at + 4:g} {top - 8:g}) rotate(-90)">{name}</text>')
        for true, row in enumerate(self.counts):
            total = max(1, sum(row))
            for predicted, value in enumerate(row):
                if value:
                    place = left + _CELL * predicted, top + _CELL * true
                    parts.append(_square(*place, value, value / total, true == predicted))
        size = f'width="{left + side + _PAD:g}" height="{top + side + _PAD:g}"'
        style = f"text{{font:12px sans-serif;fill:{_TEXT}}}.said{{fill:{_MUTED}}}"
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return f"<svg {spaces} {size}><style>{style}</style>{''.join(parts)}</svg>"


def _square(x: float, y: float, value: int, share: float, right: bool) -> str:
    colour, depth = (_RIGHT, share * 0.45) if right else (_WRONG, min(1.0, 0.1 + share * 1.6))
    square = f'x="{x:g}" y="{y:g}" width="{_CELL - 1}" height="{_CELL - 1}"'
    return (
        f'<rect {square} fill="{colour}" fill-opacity="{depth:.3f}"/>'
        f'<text x="{x + _CELL / 2:g}" y="{y + _CELL / 2 + 4:g}" text-anchor="middle">{value}</text>'
    )


def _shown(name: str) -> str:
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return escape(plain if len(plain) <= LONGEST_NAME else plain[: LONGEST_NAME - 1] + "…")
