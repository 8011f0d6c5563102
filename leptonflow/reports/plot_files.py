"""Pictures that stand alone: the report's plots and a confusion matrix as SVG files, shown by an <img> of any page.

An image has no page to take its colours from, so it brings a ground and the report's colours.
What does not belong here: what the plots show (plots).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

MOST_CLASSES = 30  # more cells cannot be read
LONGEST_NAME = 14
SCALE = 2  # the plots are drawn for a phone's width

_CARD = "#ffffff"
_COLOURS = {  # light, dark
    "muted": ("#5c6878", "#9aa7b8"), "line": ("#dfe4ea", "#303947"), "ground": (_CARD, "#1a2028"),
    "series-1": ("#2563eb", "#78a9ff"), "series-2": ("#c2570c", "#f0a35e"), "series-3": ("#0f8a6a", "#4fd1ae"),
}  # fmt: skip
_RIGHT, _WRONG = "rgb(37, 99, 235)", "rgb(200, 60, 40)"
_CELL, _PAD = 34, 12
_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def standalone(*plots: str) -> str:
    """Some of the plots, which take their colours from a page, as one SVG file, each below the last.

    It brings the page's colours, those for light and those for dark.
    """
    parts, width, height = [], 0.0, 0.0
    for svg in plots:
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
        if box is None:
            raise ValueError("not one of our plots: it has no viewBox")
        own = [float(number) for number in box.groups()]
        place = f'<svg y="{height:g}" width="{own[0]:g}" height="{own[1]:g}"'
        parts.append(svg.replace("<svg", place, 1))
        width, height = max(width, own[0]), height + own[1] + _PAD
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width * SCALE:g}" height="{height * SCALE:g}"'
    light, dark = ("".join(f"--{name}: {pair[at]}; " for name, pair in _COLOURS.items()) for at in (0, 1))
    style = f"svg {{ {light}font-family: sans-serif; }} @media (prefers-color-scheme: dark) {{ svg {{ {dark}}} }}"
    ground = '<rect width="100%" height="100%" fill="var(--ground)"/>'
    return f"<svg {_SPACES} {size}><style>{style}</style>{ground}{''.join(parts)}</svg>"


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Counts [true][predicted] as an SVG file: the deeper the colour, the larger the share of its row.

    "" for more classes than can be read. Names come from outside: they are text, and cut to a readable length.
    """
    count = len(classes)
    if not 0 < count <= MOST_CLASSES:
        return ""
    names = [_shown(name) for name in classes]
    longest = max(len(name) for name in names)
    left = top = _PAD + 7.5 * longest + 24
    side = _CELL * count
    parts = [
        f'<rect width="100%" height="100%" fill="{_CARD}"/>',
        f'<text x="{left + side / 2:g}" y="16" text-anchor="middle" class="said">predicted</text>',
        f'<text transform="translate(16 {top + side / 2:g}) rotate(-90)" text-anchor="middle" class="said">true</text>',
    ]
    for number, name in enumerate(names):
        at = _CELL * (number + 0.5)
        parts.append(f'<text x="{left - 8:g}" y="{top + at + 4:g}" text-anchor="end">{name}</text>')
        parts.append(f'<text transform="translate({left + at + 4:g} {top - 8:g}) rotate(-90)">{name}</text>')
    for true, row in enumerate(matrix):
        total = max(1, sum(row))
        for predicted, value in enumerate(row):
            if value:
                place = left + _CELL * predicted, top + _CELL * true
                parts.append(_cell(*place, value, value / total, true == predicted))
    size = f'width="{left + side + _PAD:g}" height="{top + side + _PAD:g}"'
    style = f"text{{font:12px sans-serif;fill:#1b2430}}.said{{fill:{_COLOURS['muted'][0]}}}"
    return f"<svg {_SPACES} {size}><style>{style}</style>{''.join(parts)}</svg>"


def data_uri(svg: str) -> str:
    """The SVG file as the address of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _cell(x: float, y: float, value: int, share: float, right: bool) -> str:
    colour, depth = (_RIGHT, share * 0.45) if right else (_WRONG, min(1.0, 0.1 + share * 1.6))
    square = f'x="{x:g}" y="{y:g}" width="{_CELL - 1}" height="{_CELL - 1}"'
    return (
        f'<rect {square} fill="{colour}" fill-opacity="{depth:.3f}"/>'
        f'<text x="{x + _CELL / 2:g}" y="{y + _CELL / 2 + 4:g}" text-anchor="middle">{value}</text>'
    )


def _shown(name: str) -> str:
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return escape(plain if len(plain) <= LONGEST_NAME else plain[: LONGEST_NAME - 1] + "…")
