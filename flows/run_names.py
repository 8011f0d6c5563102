"""Short texts about a run: its name, its tags, a log line for each stage, a sentence for its end. Pure functions.

What does not belong here: artifacts (artifacts), and Prefect's API (run_page).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.reports.wording import number
from schemas.arrivals import TAG
from schemas.records import Evaluation, FitResult, InfraResult, Outcome, PackageRef, Plan, SnapshotRef, Split, Verdict
from schemas.text import counted, noun, printable
from schemas.workloads import overall

FAILED, CRASHED = "failed", "crashed"
STARTING, TRAINING = "starting", "training"
ENDS = (
    "promoted", "refused", "waiting", "unchanged", "rejected-data", "scored", "drift", "no-drift", "too-few",
    FAILED, CRASHED,
)  # fmt: skip


def run_name(pipeline: str, snapshot: str | None, doing: str) -> str:
    """Pipeline, data, and what the run does or how it ended: digits-3fa2c1d07e55-training."""
    return "-".join(part for part in (pipeline, snapshot, doing) if part)


def tags(before: Sequence[str], pipeline: str, end: str | None = None) -> list[str]:
    """The run's tags with ours: leptonflow, the pipeline, and how it ended; an earlier attempt's end is gone."""
    kept = [tag for tag in before if tag not in ENDS]
    return sorted({*kept, TAG, pipeline, *([end] if end else [])})


def failed_name(before: str, pipeline: str, end: str) -> str:
    """The name of a run that failed or crashed, from the one that it had: what it was about is kept."""
    about = re.sub(rf"-({'|'.join((STARTING, TRAINING, *ENDS))})$", "", before)
    return f"{about if about.startswith(pipeline) else pipeline}-{end}"


def sentence(document: Mapping[str, Any]) -> str:
    """Why the run ended as it did, as plain text: the final state's message."""
    told = printable(str(document.get("sentence") or document["verdict"]))
    if document["verdict"] == "unchanged":
        return f"nothing new since run {document['run_id']}, which was: {told}"
    return told


def line(stage: str, result: object) -> str:
    """A stage's result in a few words, for its log line; "" where there is nothing to add."""
    match result:
        case [FitResult(fold=int()), *_] as fits:
            metrics = [fit.metrics for fit in fits if isinstance(fit, FitResult)]
            name = next(iter(overall(metrics[0])), "")
            return f"{name} {', '.join(number(each.get(name)) for each in metrics)}"
        case Verdict() if stage != "gate":
            return result.verdict  # the gate's own line says why
        case Outcome():
            return f"{result.batch} {result.outcome}: {result.sentence}"
        case SnapshotRef():
            return f"snapshot {result.snapshot}, {counted(result.examples, 'example')}"
        case Split():
            return result.rejected or "; ".join((f"{result.train} train, {result.holdout} holdout", *result.warnings))
        case Plan():
            return f"{some(len(result.waiting), 'pending batch', 'pending batches')}"
        case PackageRef():
            return f"version {result.version}, {result.bytes} bytes"
        case Evaluation():
            scores = result.candidate_scores.metrics
            name = overall(scores)[0]
            return f"holdout {name} {number(scores[name])}"
        case InfraResult() | Verdict():
            return result.sentence
    return ""


def some(count: int, one: str, more: str) -> str:
    """1 batch, 2 batches, no batch."""
    return f"{number(count) if count else 'no'} {one if not count else noun(count, one, more)}"


def detailed(where: str, details: Mapping[str, str | None]) -> str:
    """Where the training is, with what each fit under way is at. A single one is named by `where` already."""
    if len(details) == 1:
        (detail,) = details.values()
        return where if detail is None else f"{where}: {detail}"
    return "; ".join((where, *(f"{fit}: {detail}" for fit, detail in details.items() if detail is not None)))


def moved(shares: Mapping[str, float], folds: int) -> tuple[float, str] | None:
    """(percent of all training, where it is) from how far each fit is that the engine has reported; None before one.

    A fold trains on all but one part of the examples, the final fit on all of them. Folds below the first one that was
    reported are done already.
    """
    if "final fit" in shares:
        share = shares["final fit"]
        told = f"{folds} folds and the final fit are done" if share == 1 else f"{folds} folds are done, final fit"
        return 100 * (folds - 1 + share) / folds, told
    of = {int(found[1]): share for stage, share in shares.items() if (found := re.fullmatch(r"fold (\d+)", stage))}
    if not of:
        return None
    weight = (folds - 1) / folds  # of a fold, where the final fit has 1: all of them together have `folds`
    at = [str(number) for number, share in sorted(of.items()) if share < 1] or [str(max(of))]
    done = min(of) - 1 + sum(of.values())
    return 100 * weight * done / folds, f"{noun(len(at), 'fold', 'folds')} {', '.join(at)} of {folds}"
