"""A study as one HTML file that opens offline: how the metric went, the best trials side by side, every trial.

Names come from outside and are hostile: the template escapes everything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from leptonflow.reports import pages, plots
from schemas.text import counted
from schemas.trials import Study, Trial

BEST = 10


def render(study: Study, trials: Sequence[Trial], best: Trial | None) -> bytes:
    """The page (UTF-8), with no reference to anything outside itself."""
    from markupsafe import Markup

    complete = [each for each in trials if each.state == "complete" and each.value is not None]
    complete.sort(key=lambda each: -(each.value or 0.0) if study.higher_is_better else each.value or 0.0)
    metric = study.metric.partition("[")[0]  # without a class, whose name comes from outside
    whole, pruned = (
        {each.number: each.value for each in trials if each.state == state and each.value is not None}
        for state in ("complete", "pruned")
    )
    view = {
        "study": study,
        "trials": trials,
        "best": best,
        "first": trials[0] if trials else None,
        "keys": list(study.ranges),
        "shown": complete[:BEST],
        "states": _states(trials),
        "ranges": {key: _told(each) for key, each in study.ranges.items()},
        # The plot is ours, made of numbers and of a metric's name: it is markup and not text.
        "plot": Markup(plots.study(whole, pruned, metric, study.higher_is_better)),
    }
    made = pages.environment()
    made.filters["value"] = text
    return made.get_template("study.html.j2").render(**view).encode("utf-8", "replace")


def text(value: Any) -> str:
    """A parameter as a person reads it: text as it is, numbers short, the rest as JSON."""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _told(of: Any) -> str:
    """A range, as the YAML has it, in words."""
    if isinstance(of, dict):
        return f"one of {text(of['choices'])}"
    return f"{text(of[0])} to {text(of[1])}{', by factors' if len(of) > 2 else ''}"


def _states(trials: Sequence[Trial]) -> str:
    counts = {state: sum(each.state == state for each in trials) for state in ("complete", "pruned", "failed")}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{counted(len(trials), 'trial')}: {told}" if told else counted(0, "trial")
