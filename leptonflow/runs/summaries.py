"""A finished run in two values: its key metric, and what decided. Pure functions over the run's document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.workloads import overall


def key_metric(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """{name, on, value}: the metric of the gate's first rule that has one, as that rule measured it.

    A rule about a difference or an interval has another value than the metric: then the holdout's is taken, else the
    mean over the folds. None where the run measured nothing.
    """
    holdout, cv = run.get("holdout") or {}, run.get("cv") or {}
    means = {name: found["mean"] for name, found in cv.items()}
    for rule in run.get("gate") or ():
        name = rule["metric"]
        if name in means and (name not in holdout or rule["value"] == means[name]):
            return {"name": name, "on": "cv", "value": means[name]}
        if name in holdout:
            return {"name": name, "on": "holdout", "value": holdout[name]}
    name = next(iter(overall(holdout)), None)
    return {"name": name, "on": "holdout", "value": holdout[name]} if name else None


def reason(run: Mapping[str, Any]) -> str:
    """What decided: the first rule that failed and how many others did, else the verdict's own words."""
    failed = [rule for rule in run.get("gate") or () if rule["passed"] is False]
    if not failed:
        return str(run.get("sentence") or "").partition(";")[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{failed[0]['rule']}: {failed[0]['sentence']}{more}"
