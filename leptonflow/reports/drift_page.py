"""A look for drift as one HTML file that opens offline: its verdict, each test, and the quality by labels.

Names come from outside and are hostile: the template escapes everything.
"""

from __future__ import annotations

from leptonflow.reports import pages
from schemas.drift import DriftRecord, DriftTest


def render(record: DriftRecord, back: str | None = None) -> bytes:
    """The page (UTF-8), with no reference to anything outside itself. back: the address of the pipeline's page."""
    made = pages.environment()
    made.filters["value"] = value
    return made.get_template("drift.html.j2").render(record=record, back=back).encode("utf-8", "replace")


def value(test: DriftTest, which: int) -> str:
    """The reference's (0) or the served (1) value of a test, a share in percent; a dash where it has none."""
    if test.values is None:
        return "–"
    found = test.values[which]
    return f"{found:.1%}" if test.method == "chi-square" else f"{found:.4g}".replace("-", "−")
