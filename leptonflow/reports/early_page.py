"""The report of a run that `stop_early_if` ended, as one HTML file that opens offline: what the folds said.

Names come from outside and are hostile: the template escapes everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.reports import pages
from schemas.config import Pipeline
from schemas.records import FitResult, Verdict


def render(config: Pipeline, document: Mapping[str, Any], verdict: Verdict, fits: Sequence[FitResult]) -> bytes:
    """The page (UTF-8), with no reference to anything outside itself. fits: the finished folds."""
    view = {
        "pipeline": config.name,
        "document": document,
        "verdict": verdict,
        "rule": verdict.rules[0],
        "folds": config.training.folds,
        "fits": sorted(fits, key=lambda fit: fit.fold or 0),
        "metrics": list(document["cv"]),
    }
    return pages.shared().get_template("early.html.j2").render(**view).encode("utf-8", "replace")
