"""Candidate and champion on the same holdout, each as its package lies on the store.

Predictions are written first and scored from the bytes that lie there. What does not belong here:
which metric matters (gate), and how a metric is computed (the workload).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from leptonflow.core import store_keys
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.dataset import example_sets, reencoding
from leptonflow.registry import champion_log, intact_champions, packages
from leptonflow.registry.packages import Package
from leptonflow.storage.objects import adopt, steady
from leptonflow.storage.store import Store
from leptonflow.training.model_fits import planned
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog, predictions
from leptonflow.workloads.base import Scores, Target, score
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, Damaged, LandingChanged, NotFound, TrainingError
from schemas.records import Evaluation, HoldoutScores, ObjectRef, Plan, Rival, SnapshotRef
from schemas.rules import Baseline, Overfit
from schemas.text import nfc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.registry.champion_log import Champion


TRAINING_EXAMPLES = 2000  # that `overfit` scores: the first by id, which is a digest, hence a fair sample


class NotComparable(Exception):
    """Why a champion has no scores on this holdout. Never leaves this module."""


def evaluate(
    store: Store,
    config: Pipeline,
    plan: Plan,
    champion: Champion | None,
    proven: Iterable[Champion] = (),
    workspace: Workspace | None = None,
) -> Evaluation:
    """Score the plan's package, the champion's and those of `proven` on the current holdout. Safe to repeat.

    Writes holdout-predictions.parquet, champion-predictions-<N>.parquet and evaluation-<N>.json under
    the run, N being the record that names the champion (0: none). A champion that is damaged or has
    other classes has no scores, and `not_comparable` says why; it never ends the run. Raises NotFound
    and Damaged for the candidate's own package.
    """
    version, snapshot = planned(plan)
    folder = store_keys.run_folder(config.name, plan.run_id or "")
    key = f"{folder}/evaluation-{champion.number if champion else 0}.json"
    if store.size(key) is not None:
        return Evaluation.model_validate_json(steady(store, key))
    candidate = packages.load(store, config.name, version, code=own_model.runs_code(config.model))
    examples = example_sets.holdout_set(store, config, snapshot)
    target, classes = catalog.load(config.workload).target, snapshot.classes
    found = candidate.predict(examples.inputs)
    data = predictions.write(
        target, examples.ids, examples.labels, found, classes, None, examples.sources, examples.groups
    )
    where = f"{folder}/holdout-predictions.parquet"
    data = adopt(store, where, data)
    scores = _scores(target, version, data, classes)
    own = Rival(version=version, scores=scores, not_comparable=None, predictions=_reference(where, data))

    def rival(other: Champion) -> Rival:
        return own if other.version == version else _rival(store, config, snapshot, other, examples, folder)

    last = None if champion is None else rival(champion)
    training, simple = _besides(store, config, snapshot, candidate, examples, workspace or Workspace())
    result = Evaluation(
        run_id=plan.run_id or "",
        version=version,
        champion=champion.version if champion else None,
        candidate_scores=scores,
        champion_scores=last.scores if last else None,
        not_comparable=last.not_comparable if last else None,
        predictions=_reference(where, data),
        champion_predictions=last.predictions if last else None,
        training=training,
        baselines=simple,
        proven=tuple(rival(each) for each in proven),
    )
    return Evaluation.model_validate_json(adopt(store, key, canonical(result)))


def _rival(
    store: Store,
    config: Pipeline,
    snapshot: SnapshotRef,
    champion: Champion,
    examples: example_sets.Examples,
    folder: str,
) -> Rival:
    """A champion's predictions of the candidate's holdout, written and scored; or why there are none."""
    try:
        found = _champion_outputs(store, config, snapshot, champion, examples)
    except NotComparable as error:
        return Rival(version=champion.version, scores=None, not_comparable=str(error), predictions=None)
    target, classes = catalog.load(config.workload).target, snapshot.classes
    data = predictions.write(
        target, examples.ids, examples.labels, found, classes, None, examples.sources, examples.groups
    )
    name = f"{folder}/champion-predictions-{champion.number}.parquet"
    data = adopt(store, name, data)
    scores = _scores(target, champion.version, data, classes)
    return Rival(version=champion.version, scores=scores, not_comparable=None, predictions=_reference(name, data))


def _reference(key: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=key, sha256=sha256(data), bytes=len(data))


def _besides(
    store: Store,
    config: Pipeline,
    snapshot: SnapshotRef,
    candidate: Package,
    holdout: example_sets.Examples,
    workspace: Workspace,
) -> tuple[dict[str, float | None] | None, dict[str, dict[str, float | None]]]:
    """(the candidate's metrics on training examples, those of simple models), measured where a rule asks."""
    wanted = {type(rule) for rule in config.gate}
    if not wanted & {Overfit, Baseline}:
        return None, {}
    workload, train = catalog.load(config.workload), workspace.examples(store, config, snapshot)
    training = None
    if Overfit in wanted:
        rows = candidate.predict(train.inputs[:TRAINING_EXAMPLES])
        training = workload.score(train.labels[:TRAINING_EXAMPLES], rows, snapshot.classes)
    if Baseline not in wanted:
        return training, {}
    simple = workload.baselines(
        train.inputs, train.labels, holdout.inputs, holdout.labels, snapshot.classes, config.training.seed
    )
    return training, simple


def _champion_outputs(
    store: Store, config: Pipeline, snapshot: SnapshotRef, champion: Champion, examples: example_sets.Examples
) -> NDArray[np.float64]:
    """N outputs, through the preprocessing of its own package; in the current class order where there are classes."""
    import numpy as np

    try:
        package = packages.load(
            store, config.name, champion.version, champion.manifest_sha256, own_model.runs_code(config.model)
        )
        own = package.manifest
        classes = [nfc(name) for name in own.classes]
        if own.workload != config.workload or set(classes) != set(snapshot.classes):
            gone = ", ".join(sorted(set(classes) - set(snapshot.classes))) or "none"
            new = ", ".join(sorted(set(snapshot.classes) - set(classes))) or "none"
            raise NotComparable(f"the champion {champion.version} has other classes (only its own: {gone}; new: {new})")
        columns = [classes.index(name) for name in snapshot.classes]
        rows = package.predict(_encoded(store, config, snapshot, package, examples).inputs)
        rows = rows[:, columns] if columns else rows
        broken = int((~np.isfinite(rows)).any(axis=1).sum())
        if broken:
            raise NotComparable(
                f"the champion {champion.version} cannot be scored: {broken} of its {len(rows)} predictions "
                "are not finite numbers"
            )
        return rows
    except (Damaged, NotFound) as error:
        log = champion_log.promotions(store, config.name)
        way = intact_champions.way_back(
            store, config.name, replace(log, entries=log.entries[: champion.number]), champion.version
        )
        raise NotComparable(f"the champion {champion.version} cannot be scored: {error.line()} {way}") from error
    except (TrainingError, LandingChanged, ConfigurationError) as error:
        raise NotComparable(f"the champion {champion.version} cannot be scored: {error.line()}") from error


def _encoded(
    store: Store, config: Pipeline, snapshot: SnapshotRef, package: Package, examples: example_sets.Examples
) -> example_sets.Examples:
    """The same holdout as the champion's own preprocessing gives it."""
    own = package.manifest
    if own.preprocessing == snapshot.preprocessing:
        return examples
    version = catalog.load(config.workload).preprocessing_version
    if package.preprocessing["preprocessing_version"] != version:
        raise NotComparable(
            f"the champion {own.version} was trained with preprocessing version "
            f"{package.preprocessing['preprocessing_version']}, and this code has only version {version}"
        )
    theirs = config.model_copy(update={"input": own.input})
    again = example_sets.holdout_set(store, theirs, reencoding.reencoded(store, theirs, snapshot))
    if again.ids != examples.ids:
        raise NotComparable(f"the holdout that was encoded for the champion {own.version} has other examples")
    return again


def _scores(target: Target, version: str, data: bytes, classes: Sequence[str]) -> HoldoutScores:
    """data: a file of predictions."""
    _, truth, outputs = predictions.read(target, data, classes)
    return summary(version, target.scores(truth, outputs, classes))


def summary(version: str, scores: Scores) -> HoldoutScores:
    """Every metric of a version's scores, for a record."""
    return HoldoutScores(
        version=version, metrics=score(scores), confusion=scores.confusion(), examples=len(scores)
    )  # fmt: skip
