"""Gathers from the store what a report shows beside the run's own records: examples, drift, error rates.

What is worked out of it is pure and elsewhere (classification_errors, metric_intervals, drift, simulation), how it
looks is the report's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from leptonflow.data.dataset import dataset_contents, example_sets
from leptonflow.data.validation import drift
from leptonflow.evaluation import metric_intervals
from leptonflow.evaluation.metric_intervals import Between
from leptonflow.gate import simulation
from leptonflow.gate.evidence import together
from leptonflow.registry import packages
from leptonflow.reports.html_report import Operating
from leptonflow.storage.objects import BACK, recorded
from leptonflow.storage.store import Store
from leptonflow.training.model_fits import planned
from leptonflow.workloads import catalog, predictions
from leptonflow.workloads.base import Evaluated, Scores, Shown, Workload
from leptonflow.workloads.classification_errors import Analysis
from schemas import own_model
from schemas.config import AgainstChampion, Pipeline
from schemas.errors import ConfigurationError, Damaged, UsageError
from schemas.records import Evaluation, FitResult, ObjectRef, Plan, SnapshotRef
from schemas.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.data.dataset.example_sets import Examples


CONFIDENCE = 0.95  # of every interval that a report shows, two-sided


@dataclass(frozen=True)
class Gathered:
    """Parts of report.Contents. shown: an example as the workload shows it, by its index in the holdout."""

    analysis: Analysis | None
    between: Mapping[str, Between]
    shown: Mapping[int, Shown]
    note: str
    drift: drift.Drift | None
    operating: Operating | None


def gather(
    store: Store,
    config: Pipeline,
    plan: Plan,
    evaluation: Evaluation,
    fits: Sequence[FitResult],
    holdout: Examples | None = None,
) -> Gathered:
    """holdout: its examples where the caller has them. Raises Damaged where predictions are changed or of others."""
    version, snapshot = planned(plan)
    holdout = holdout if holdout is not None else example_sets.holdout_set(store, config, snapshot)
    workload = catalog.load(config.workload)
    labels, mine, its = _both(store, workload, snapshot, evaluation, holdout)
    scores = workload.target.scores(labels, mine, snapshot.classes)
    champion = None if its is None else workload.target.scores(labels, its, snapshot.classes)
    candidate = partial(packages.load, store, config.name, version, code=own_model.runs_code(config.model))
    panels = workload.panels(Evaluated(holdout.inputs, config.input, candidate))
    groups = together(dict(zip(holdout.ids, holdout.groups or (), strict=False)), holdout.ids)
    found: Analysis | None = None
    if workload.errors is not None:
        found = workload.errors(
            holdout.ids, labels, mine, its, snapshot.classes, holdout.batches, holdout.sources, panels.slices, groups
        )
    return Gathered(
        analysis=found,
        between=metric_intervals.between(scores, champion, CONFIDENCE, groups),
        shown=panels.shown(found.shown if found else ()),
        note=panels.note,
        drift=_drift(store, snapshot),
        operating=_operating(store, config, workload, snapshot, (scores, champion), fits),
    )


def _both(
    store: Store, workload: Workload, snapshot: SnapshotRef, evaluation: Evaluation, holdout: Examples
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64] | None]:
    """(N true values, the candidate's N outputs, the champion's).

    Without a champion's where it is the candidate itself, or has no scores.
    """
    ids, labels, mine = _predictions(store, workload, evaluation.predictions, snapshot)
    _same_examples(evaluation.predictions, ids, holdout.ids)
    champion, its = evaluation.champion_predictions, None
    if champion is not None and champion.key != evaluation.predictions.key:
        theirs, _, its = _predictions(store, workload, champion, snapshot)
        _same_examples(champion, theirs, ids)
    return labels, mine, its


def _predictions(
    store: Store, workload: Workload, file: ObjectRef, snapshot: SnapshotRef
) -> tuple[list[str], NDArray[Any], NDArray[np.float64]]:
    """(ids, N true values, N outputs), the bytes held against what was recorded of them."""
    return predictions.read(workload.target, recorded(store, file.key, file.sha256), snapshot.classes)


def _same_examples(file: ObjectRef, found: Sequence[str], expected: Sequence[str]) -> None:
    if list(found) != list(expected):
        raise Damaged(
            f"{file.key} tells of other examples than this run's holdout",
            expected=f"{counted(len(expected), 'example')}, by id",
            received=f"{counted(len(found), 'example')}, {len(set(found) & set(expected))} of them the same",
            hint=BACK,
        )  # fmt: skip


def _drift(store: Store, snapshot: SnapshotRef) -> drift.Drift | None:
    """The newest batch of the snapshot against those before it; None where it has one batch alone."""
    import numpy as np

    if len(snapshot.batches) < 2:
        return None
    batches: list[str] = []
    labels: list[str] = []
    rows: list[dict[str, Any]] = []
    for table in dataset_contents.tables(store, snapshot.parts, snapshot.changes, ("id", "label", "batch", "facts")):
        labels += table["label"].to_pylist()
        batches += table["batch"].to_pylist()
        rows += table["facts"].to_pylist()
    numbers = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    facts = {
        name: np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)
        for name in sorted(numbers)
    }
    return drift.compare(snapshot.batches[-1], batches, labels, facts, snapshot.classes)


def _operating(
    store: Store,
    config: Pipeline,
    workload: Workload,
    snapshot: SnapshotRef,
    pair: tuple[Scores, Scores | None],
    fits: Sequence[FitResult],
) -> Operating | None:
    """The strictest paired rule on right predictions, at the discordance of this run; None: nothing to draw.

    pair: the scores of the candidate, and of a champion that it is compared with.
    """
    from leptonflow.gate import simulation
    from leptonflow.gate.rules.scores import pairs

    rules = [rule for rule in config.gate if isinstance(rule, AgainstChampion) and rule.metric == simulation.METRIC]
    mine, its = pair[0].correct, pair[1].correct if pair[1] is not None else None
    if not rules or mine is None or not len(mine):
        return None
    if its is not None:
        discordance = sum(pairs(mine, its)) / len(mine)
        source = "candidate and champion on this holdout"
    else:
        discordance = _assumed(store, workload, snapshot, fits)
        source = "assumed without a champion, 2 mean(p (1 - p)), p the out-of-fold probability of the true label"
    if not 0 < discordance <= 1:  # never differed, or never in doubt: a curve of one point
        return None
    try:
        margin, confidence = simulation.strictest_rule(config)
        return Operating(simulation.simulate(len(mine), discordance, margin, confidence), source)
    except (ConfigurationError, UsageError):  # `gate --simulate` says why; a report without its curve ends no run
        return None


def _assumed(store: Store, workload: Workload, snapshot: SnapshotRef, fits: Sequence[FitResult]) -> float:
    """The discordance of two independent models, each right with the probability that the folds' models gave."""
    import numpy as np

    chances: list[float] = []
    for fit in fits:
        for file in fit.files:
            if file.key.endswith("oof.parquet"):
                _, labels, probabilities = _predictions(store, workload, file, snapshot)
                chances += probabilities[range(len(labels)), labels].tolist()
    return simulation.independent_discordance(np.asarray(chances, np.float64))
