"""A look for drift as one HTML file that opens offline: its verdict, each test, and the quality by labels.

Names come from outside and are hostile: the template escapes everything.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from leptonflow.reports import pages
from schemas.drift import DriftRecord, DriftTest

if TYPE_CHECKING:
    from jinja2 import Template


def render(record: DriftRecord, back: str | None = None) -> bytes:
    """The page (UTF-8), with no reference to anything outside itself. back: the address of the pipeline's page."""
    return _template().render(record=record, back=back).encode("utf-8", "replace")


@cache
def _template() -> Template:
    made = pages.environment()
    made.filters |= {"value": value, "spread": spread, "change": change}
    return made.get_template("drift.html.j2")


def value(test: DriftTest, which: int) -> str:
    """The reference's (0) or the served (1) value of a test, a share in percent; a dash where it has none."""
    if test.values is None:
        return "–"
    found = test.values[which]
    return f"{found:.1%}" if test.method == "chi-square" else f"{found:.4g}".replace("-", "−")


def spread(test: DriftTest, which: int) -> str:
    """The standard deviation of the reference (0) or of what was served (1); empty where the test has none."""
    return "" if test.spreads is None else f"± {test.spreads[which]:.4g}"


def change(test: DriftTest) -> str:
    """What a drift did to the values, or to their spread where that changed by more than the mean."""
    moved, widened = (0.0 if pair is None else pair[1] - pair[0] for pair in (test.values, test.spreads))
    if abs(widened) > abs(moved):
        return "↔ wider" if widened > 0 else "↔ narrower"
    if moved == 0:
        return "yes"
    return "↑ higher" if moved > 0 else "↓ lower"
