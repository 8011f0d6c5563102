"""A look for drift as one HTML file that opens offline: its verdict, each test, and the quality by labels.

Names come from outside and are hostile: the template escapes everything.
"""

from __future__ import annotations

from leptonflow.reports import pages
from schemas.drift import DriftRecord


def render(record: DriftRecord) -> bytes:
    """The page (UTF-8), with no reference to anything outside itself."""
    return pages.environment().get_template("drift.html.j2").render(record=record).encode("utf-8", "replace")
