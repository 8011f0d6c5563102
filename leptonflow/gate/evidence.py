"""What the gate's rules argue from, example by example, gathered from the store.

Reading belongs here, and saying what is not proven. What a rule makes of it does not (rules, gate),
nor does measuring (evaluation, load_check).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import store_keys
from leptonflow.data.dataset import dataset_contents, dataset_state, identities, part_files
from leptonflow.registry import ancestry, packages
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.workloads import catalog, predictions
from leptonflow.workloads.base import Scores, Target
from schemas import constants
from schemas.config import Pipeline
from schemas.constants import RESERVED
from schemas.errors import ConfigurationError, Damaged, NotFound
from schemas.records import Evaluation, InfraResult, ModelManifest, ObjectRef, Plan, SnapshotRef
from schemas.rules import AtLeast, AtMost, Slices
from schemas.text import noun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leptonflow.registry.champion_log import Champion


class Beside(NamedTuple):
    """Another champion's N outputs for the same examples, and why its comparison would not be fair."""

    outputs: NDArray[np.float64] | None
    disjoint: str | None


@dataclass(frozen=True)
class Evidence:
    """N holdout examples in the order of their ids, K classes in the snapshot's order.

    target       how predictions of the workload are scored
    labels       N true values, such as class numbers
    candidate    N outputs of the model; champion: the same examples, None where it has no scores
    batches      N names; newest: the batch that arrived last. Empty where no rule asks
    facts        for each fact that a rule names N numbers, NaN where an example has none; for one that is
                 no number, such as format, N strings or None
    groups       N numbers: which examples belong together; None where each is a group by itself
    oof          (M true values, M outputs) out of fold, None where no rule asks; oof_groups: as groups
    champion_cv  the champion's metrics over its folds; other_folds: why they are not the candidate's
    training     the candidate's metrics on training examples; baselines: those of simple models
    disjoint     None where the manifests prove that neither learned from the holdout, else why not
    looks        finished verdicts of this pipeline before this one
    proven       by version: the best proven champions that are not the last one
    """

    classes: tuple[str, ...]
    target: Target
    labels: NDArray[Any]
    candidate: NDArray[np.float64]
    champion: NDArray[np.float64] | None = None
    batches: tuple[str, ...] = ()
    newest: str | None = None
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None
    oof: tuple[NDArray[Any], NDArray[np.float64]] | None = None
    oof_groups: NDArray[np.int64] | None = None
    champion_cv: Mapping[str, Mapping[str, Any]] | None = None
    other_folds: str | None = None
    training: Mapping[str, float | None] | None = None
    baselines: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    baseline_words: Mapping[str, str] = field(default_factory=dict)
    latency_ms: float | None = None
    package_bytes: int | None = None
    disjoint: str | None = None
    looks: int = 0
    proven: Mapping[str, Beside] = field(default_factory=dict)

    def scores(self, labels: NDArray[Any], outputs: NDArray[np.float64]) -> Scores:
        """Of other predictions of the same kind."""
        return self.target.scores(labels, outputs, self.classes)

    @cached_property
    def mine(self) -> Scores:
        """The candidate's."""
        return self.scores(self.labels, self.candidate)

    @cached_property
    def theirs(self) -> Scores | None:
        """The champion's; None where it has none."""
        return None if self.champion is None else self.scores(self.labels, self.champion)


def gather(
    store: Store, config: Pipeline, plan: Plan, champion: Champion | None, evaluation: Evaluation, infra: InfraResult
) -> Evidence:
    """Everything that the pipeline's rules may ask for. Raises Damaged where predictions were changed."""
    version, snapshot = model_fits.planned(plan)
    workload = catalog.load(config.workload)
    ids, labels, candidate = _predictions(store, workload.target, evaluation.predictions, snapshot)
    theirs = evaluation.champion_predictions
    against = None if theirs is None else _predictions(store, workload.target, theirs, snapshot)[2]
    batches, facts = about(store, config, snapshot, ids)
    mine = packages.manifest(store, config.name, version)
    other, disjoint, other_folds = None, None, None
    if champion is not None and champion.version != version:
        other, disjoint = _learned_elsewhere(store, config, mine, champion.version, snapshot)
        other_folds = None if other is None else not_same_folds(mine, other)
    proven = {}
    for rival in evaluation.proven:
        its = rival.predictions
        rows = None if its is None else _predictions(store, workload.target, its, snapshot)[2]
        proven[rival.version] = Beside(rows, _learned_elsewhere(store, config, mine, rival.version, snapshot)[1])
    groups = dataset_contents.groups(store, snapshot.parts, snapshot.group)
    oof_ids, oof = _out_of_fold(store, config, version, snapshot)
    return Evidence(
        classes=snapshot.classes,
        target=workload.target,
        labels=labels,
        candidate=candidate,
        champion=against,
        batches=batches,
        newest=snapshot.batches[-1] if snapshot.batches else None,
        facts=facts,
        groups=together(groups, ids),
        oof=oof,
        oof_groups=together(groups, oof_ids),
        champion_cv=None if other is None else other.cv,
        other_folds=other_folds,
        training=evaluation.training,
        baselines=evaluation.baselines,
        baseline_words=workload.baseline_words,
        latency_ms=infra.latency_ms,
        package_bytes=infra.package_bytes,
        disjoint=disjoint,
        looks=looks(store, config.name, plan.run_id),
        proven=proven,
    )


def together(groups: Mapping[str, str], ids: Sequence[str]) -> NDArray[np.int64] | None:
    """The number of the group of each example; None where no two of them are in one group.

    groups: example id -> its group; empty in a pipeline without groups.
    """
    import numpy as np

    if not groups or not ids:
        return None
    names, numbers = np.unique([groups[example] for example in ids], return_inverse=True)
    return None if len(names) == len(ids) else numbers.astype(np.int64)


def _learned_elsewhere(
    store: Store, config: Pipeline, mine: ModelManifest, version: str, snapshot: SnapshotRef
) -> tuple[ModelManifest | None, str | None]:
    """(the champion's manifest, why it is not proven that neither of the two learned from the holdout)."""
    try:
        other = packages.manifest(store, config.name, version)
    except (Damaged, NotFound) as error:
        return None, f"the champion {version} cannot be read: {error.line()}"
    learned = (_ancestors_not_held_out(store, each, snapshot) for each in (mine, other))
    return other, next(filter(None, learned), None) or _copied(store, config, snapshot)


def _ancestors_not_held_out(store: Store, manifest: ModelManifest, snapshot: SnapshotRef) -> str | None:
    """As `not_held_out`, of the version and of all that it started from: their weights are in it."""
    version, seen = manifest.version, set[str]()
    found: ModelManifest | None = manifest
    while found is not None and found.version not in seen:
        if why := not_held_out(found, snapshot):
            return why if found.version == version else f"{why}, and {version} started from it"
        seen.add(found.version)
        try:
            found = ancestry.parent(store, found)
        except (Damaged, NotFound) as error:
            return f"it is not proven what {version} learned from: {error.line()}"
    return None


def not_held_out(manifest: ModelManifest, snapshot: SnapshotRef) -> str | None:
    """Why a version's manifest does not prove that it never learned from the snapshot's holdout; None: it does.

    An example is in the holdout by its group alone (without groups: by its id), in a larger fraction where it is in a
    smaller one: who held out at least as much, by the same rule, has seen none of it, whatever the data was.
    """
    found = manifest.config.get("holdout")
    fraction = found.get("fraction") if isinstance(found, dict) else None
    start = f"it is not proven that the version {manifest.version} never learned from this holdout"
    if not isinstance(fraction, int | float):
        return f"{start}: its manifest does not say what was held out"
    if manifest.split_rule != constants.SPLIT_RULE:
        return f"{start}: it was split by rule {manifest.split_rule}, the holdout by rule {constants.SPLIT_RULE}"
    group = None if snapshot.group is None else snapshot.group.model_dump(mode="json")
    if manifest.config.get("group") != group:
        return f"{start}: it was split by other groups than the holdout"
    if not fraction >= snapshot.holdout:
        return f"{start}: it held out {fraction:g} of the examples, the holdout is {snapshot.holdout:g} of them"
    return None


def _copied(store: Store, config: Pipeline, snapshot: SnapshotRef) -> str | None:
    """Why the ids alone prove nothing: the same content lies in training and in the holdout under two of them."""
    history = dataset_state.snapshots(store, config.name)
    same = identities.canonical(store, history)
    if not same:  # every id is the digest of its content
        return None
    copies = identities.straddling(history.entries[: snapshot.number], store, same, snapshot.holdout)
    if not copies:
        return None
    what = noun(len(copies), "holdout example is a training example", "holdout examples are training examples")
    return f"{len(copies)} {what} in other files: `ingest` records which"


def not_same_folds(mine: ModelManifest, other: ModelManifest) -> str | None:
    """Why two versions were not cross-validated on the same folds of the same snapshot; None: they were."""
    named = ((m.config.get("training") or {}) for m in (mine, other))
    settings = [(found.get("folds"), found.get("seed")) for found in named]
    if mine.snapshot != other.snapshot:
        return f"the candidate was cross-validated on snapshot {mine.snapshot}, the champion on {other.snapshot}"
    if mine.classes != other.classes:
        return "candidate and champion were cross-validated with other classes"
    if settings[0] != settings[1] or None in settings[0]:
        shown = ["{} folds of seed {}".format(*found) for found in settings]
        return f"the candidate was cross-validated in {shown[0]}, the champion in {shown[1]}"
    if mine.config.get("holdout") != other.config.get("holdout"):
        return "candidate and champion were cross-validated beside other holdouts"
    return None


def looks(store: Store, pipeline: str, run_id: str | None = None) -> int:
    """The pipeline's finished verdicts but that of `run_id`: each has looked at the holdout. Never resets.

    A run that was stopped early has not.
    """
    own = store_keys.run_key(pipeline, run_id or "", "verdict.json")
    keys = store.keys(store_keys.runs_folder(pipeline))
    early = {key.removesuffix(constants.EARLY) for key in keys if key.endswith(f"/{constants.EARLY}")}
    verdicts = (key for key in keys if key.endswith("/verdict.json") and key.removesuffix("verdict.json") not in early)
    return sum(key.count("/") == 3 and key != own for key in verdicts)


def check_facts(store: Store, config: Pipeline, snapshot: SnapshotRef) -> None:
    """Raise ConfigurationError where a rule slices by a fact that no example has as a number or a word.

    To be asked before any training, like `gate.check_metrics`.
    """
    wanted = _facts_asked(config)
    if not wanted:
        return
    there: set[str] = set()
    for part in snapshot.parts:
        struct = part_files.read_columns(store, part, ("facts",)).schema.field("facts").type
        there |= {field.name for field in struct if str(field.type) in ("int64", "double", "string")}
    derived = catalog.load(config.workload).derived
    there |= {name for name, fact in derived.items() if there.issuperset(fact.needs)}
    for number, rule in enumerate(config.gate):
        for name in rule.by if isinstance(rule, Slices) else ():
            if name in wanted and name not in there:
                raise ConfigurationError(
                    f"gate.{number}.by names no slice of the examples",
                    expected=f"one of {', '.join((*RESERVED, *sorted(there)))}",
                    received=name,
                    hint=f"Fix gate.{number}.by",
                )


def _facts_asked(config: Pipeline) -> list[str]:
    asked = [name for rule in config.gate if isinstance(rule, Slices) for name in rule.by]
    return [name for name in dict.fromkeys(asked) if name not in RESERVED]


def _predictions(
    store: Store, target: Target, file: ObjectRef, snapshot: SnapshotRef
) -> tuple[list[str], NDArray[Any], NDArray[np.float64]]:
    return predictions.read(target, recorded(store, file.key, file.sha256), snapshot.classes)


def about(
    store: Store, config: Pipeline, snapshot: SnapshotRef, ids: list[str]
) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
    """(batches, facts) of the holdout's examples, read only where a rule slices by them."""
    facts = _facts_asked(config)
    by_batch = any(isinstance(rule, Slices) and {"batch", "newest"} & set(rule.by) for rule in config.gate)
    if not facts and not by_batch:
        return (), {}
    batch: dict[str, str] = {}
    known: dict[str, dict[str, Any]] = {}
    for table in dataset_contents.tables(store, snapshot.parts, snapshot.changes, ("id", "batch", "facts")):
        for example, name, found in zip(*(table[c].to_pylist() for c in ("id", "batch", "facts")), strict=True):
            batch[example], known[example] = name, found or {}
    derived = catalog.load(config.workload).derived
    columns = {}
    for name in facts:
        found = (known[example] for example in ids)
        columns[name] = column([derived[name].of(each) if name in derived else each.get(name) for each in found])
    return tuple(batch[example] for example in ids), columns


def column(values: Sequence[Any]) -> NDArray[Any]:
    """Numbers with NaN for None; or, where one of them is a word, words with None."""
    import numpy as np

    if any(isinstance(value, str) for value in values):
        return np.asarray([None if value is None else str(value) for value in values], object)
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


def _out_of_fold(
    store: Store, config: Pipeline, version: str, snapshot: SnapshotRef
) -> tuple[list[str], tuple[NDArray[Any], NDArray[np.float64]] | None]:
    """(ids, the folds' predictions) together, read only where a rule wants an interval over the folds."""
    import numpy as np

    asked = (r for r in config.gate if isinstance(r, AtLeast | AtMost))
    if not any(rule.on == "cv" and rule.confidence is not None for rule in asked):
        return [], None
    found, target = [], catalog.load(config.workload).target
    for fold in range(config.training.folds):
        fit = model_fits.fit_result(store, config.name, version, fold)
        if fit is None:
            return [], None
        found.append(_predictions(store, target, fit.files[0], snapshot))
    ids = [example for each, _, _ in found for example in each]
    return ids, (np.concatenate([labels for _, labels, _ in found]), np.concatenate([rows for _, _, rows in found]))
