"""Small charts as SVG that a page holds: their colours come from the page's style sheet, their numbers from records.

No script and no inline style: the pages' policy allows neither. What does not belong here: which numbers are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

LEFT, RIGHT, TOP, BOTTOM = 6, 52, 8, 8  # room around a chart, that on the right for its labels


@dataclass(frozen=True)
class Point:
    """One run. kind: a class of the style sheet; low, high: its interval; title: what pointing at it says."""

    value: float
    low: float | None
    high: float | None
    kind: str
    title: str
    link: str


def metric(points: Sequence[Point], width: int, height: int, where: str = "") -> Markup:
    """Values from the oldest on the left to the newest, each with its interval; "" where there are none."""
    from markupsafe import Markup, escape

    if not points:
        return Markup("")
    ends = [end for p in points for end in (p.value, p.low, p.high) if end is not None]
    lowest, highest = min(ends), max(ends)
    if highest - lowest < 1e-9:
        lowest, highest = lowest - 0.01, highest + 0.01
    step = (width - LEFT - RIGHT) / max(1, len(points) - 1)
    radius = 3.6 if step >= 9 else 2.4

    def x(number: int) -> float:
        return LEFT + radius + step * number if len(points) > 1 else (width - RIGHT) / 2

    def y(value: float) -> float:
        return TOP + (highest - value) / (highest - lowest) * (height - TOP - BOTTOM)

    parts = [_level(y(level), width, f"{level:.3f}") for level in (highest, lowest)]
    line = " ".join(f"{x(n):.1f},{y(p.value):.1f}" for n, p in enumerate(points))
    parts.append(f'<polyline class="through" points="{line}"/>')
    for n, p in enumerate(points):
        at = f'cx="{x(n):.1f}" cy="{y(p.value):.1f}"'
        whisker = ""
        if p.low is not None and p.high is not None:
            place = f'x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{y(p.low):.1f}" y2="{y(p.high):.1f}"'
            whisker = f'<line class="whisker" {place}/>'
        parts.append(
            f'<a href="{escape(p.link)}"><g class="point {escape(p.kind)}"><title>{escape(p.title)}</title>{whisker}'
            f'<circle {at} r="{radius}"/></g></a>'
        )
    return _svg(f"metric {where}", "Key metric of each run, oldest first", width, height, parts)


def growth(counts: Sequence[int], width: int, height: int) -> Markup:
    """How a count grew, as an area in steps; "" where there are none."""
    from markupsafe import Markup

    if not counts:
        return Markup("")
    highest = max(1, *counts)
    room, base = width - LEFT - RIGHT, height - BOTTOM
    step = room / len(counts)
    path = [f"M{LEFT} {base}"]
    for number, count in enumerate(counts):
        top = base - count / highest * (height - TOP - BOTTOM)
        path.append(f"V{top:.1f}H{LEFT + step * (number + 1):.1f}")
    parts = [
        f'<path class="area" d="{"".join(path)}V{base}Z"/>',
        f'<line class="level" x1="{LEFT}" x2="{width - RIGHT}" y1="{base}" y2="{base}"/>',
        _label(TOP + 4, width, f"{highest:,}"),
        _label(base, width, "0"),
    ]
    return _svg("growth", "Examples after each batch, oldest first", width, height, parts)


def _level(y: float, width: int, text: str) -> str:
    return f'<line class="level" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>' + _label(y, width, text)


def _label(y: float, width: int, text: str) -> str:
    return f'<text x="{width - RIGHT + 6}" y="{y + 3.5:.1f}">{text}</text>'


def _svg(kind: str, title: str, width: int, height: int, parts: Sequence[str]) -> Markup:
    from markupsafe import Markup

    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return Markup(f'<svg class="chart {kind}" role="group" aria-label="{title}" {size}>{"".join(parts)}</svg>')
