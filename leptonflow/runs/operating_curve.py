"""A pipeline's own operating curve: its rules, the current holdout, and the discordance that its runs have seen.

Reads, and writes nothing. What does not belong here: the drawing of candidates (leptonflow.gate.simulation),
and how a curve looks (plots, cli).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from leptonflow.core import parquet, store_keys
from leptonflow.data.dataset import dataset_contents, dataset_state, holdout_split
from leptonflow.gate import drawn_rules, evidence, simulation
from leptonflow.registry import champion_log, packages
from leptonflow.runs import champion_metrics, recording
from leptonflow.storage.objects import recorded
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import LeptonflowError
from schemas.records import Evaluation, ObjectRef
from schemas.rules import AtLeast, AtMost, Slices
from schemas.text import counted

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Seen:
    """A discordance, what it was seen on, and what is assumed by taking it (null: nothing)."""

    value: float
    source: str
    assumption: str | None


def curve(
    store: Store,
    config: Pipeline,
    *,
    discordance: float | None = None,
    holdout: int | None = None,
    power: float = 0.8,
    better: float | None = None,
) -> tuple[simulation.Curve, Seen]:
    """The curve of the pipeline's gate, and where its discordance comes from.

    discordance, holdout  instead of those of the store, which is not read where both are given, unless a rule
                          needs the champion's accuracy or the holdout's slices

    Raises ConfigurationError without such a rule, UsageError on what is out of bounds, and
    LeptonflowError where the store has no run to learn from.
    """
    margin, confidence = simulation.strictest_rule(config)
    seen = Seen(discordance, "given", None) if discordance is not None else None
    if seen is not None:  # said before the store is read
        simulation.check(1 if holdout is None else holdout, seen.value, power, 0.0 if better is None else better)
    seen = seen or discordance_seen(store, config)
    n = holdout if holdout is not None else holdout_size(store, config)
    accuracy = champion_accuracy(store, config) if any(map(_needs_accuracy, config.gate)) else None
    rules = drawn_rules.gate(
        config, n, seen.value, simulation.RETRAININGS, accuracy=accuracy,
        holdout=todays_holdout(store, config) if any(isinstance(r, Slices) for r in config.gate) else None,
    )  # fmt: skip
    found = simulation.simulate(
        n, seen.value, margin, confidence, power=power, better=better, accuracy=accuracy, rules=rules
    )
    if config.group is not None:
        told = "independent examples; where several belong to one group, a candidate passes less often than this says"
        seen = replace(seen, assumption="; ".join(filter(None, (seen.assumption, told))))
    return found, seen


def _needs_accuracy(rule: object) -> bool:
    return isinstance(rule, AtLeast | AtMost) and rule.on == "holdout" and rule.metric == "accuracy"


def document(found: simulation.Curve, seen: Seen) -> dict[str, Any]:
    """The `--json` document of `gate --simulate`."""
    test = "exact McNemar" if found.margin == 0 else "Tango's score test"
    return {
        "n": found.n,
        "discordance": found.discordance,
        "discordance_source": seen.source,
        "assumption": seen.assumption,
        "champion_accuracy": found.accuracy,
        "margin": abs(found.margin),
        "bound": 0.0 - found.margin,
        "confidence": found.confidence,
        "method": f"{test}, one-sided; {found.retrainings} simulated retrainings for each difference",
        "rules": [vars(rule) for rule in found.rules],
        "curve": [
            {"difference": p.difference, "promoted": p.promoted, "computed": p.computed, "by_rule": list(p.by_rule)}
            for p in found.points
        ],
        "power": found.power,
        "better": found.better,
        "chance": found.chance,
        "needed": found.needed,
        "reached": found.reached,
        "sentence": found.sentence,
    }  # fmt: skip


def holdout_size(store: Store, config: Pipeline) -> int:
    """Examples in the current holdout. Raises LeptonflowError where there are none."""
    snapshot = dataset_state.state(config, dataset_state.snapshots(store, config.name))
    if snapshot is None:
        raise _nothing(config, "has no data yet", "--holdout N")
    runs = recording.runs(store, config.name)
    if runs and runs[-1]["snapshot"] == snapshot.snapshot and runs[-1]["examples"]["holdout"]:
        return int(runs[-1]["examples"]["holdout"])
    count = holdout_split.split(store, config, snapshot).holdout
    if not count:
        raise _nothing(config, "has an empty holdout", "--holdout N")
    return count


def todays_holdout(store: Store, config: Pipeline) -> evidence.Evidence | None:
    """Labels, batches and metadata of the current holdout, without predictions; None where there is no data.

    Raises ConfigurationError where a rule slices by a fact that the examples do not have.
    """
    import numpy as np

    snapshot = dataset_state.state(config, dataset_state.snapshots(store, config.name))
    if snapshot is None:
        return None
    evidence.check_facts(store, config, snapshot)
    labels: dict[str, str] = {}
    unit = "id" if snapshot.group is None else "group"
    columns = tuple(dict.fromkeys(("id", "label", unit)))
    for table in dataset_contents.tables(store, snapshot.parts, snapshot.changes, columns):
        for example, label, group in zip(*(table[name].to_pylist() for name in ("id", "label", unit)), strict=True):
            if holdout_split.in_holdout(group, snapshot.holdout):
                labels[example] = label
    ids = sorted(labels)
    batches, facts = evidence.about(store, config, snapshot, ids)
    target = catalog.load(config.workload).target
    return evidence.Evidence(
        classes=snapshot.classes,
        target=target,
        labels=target.read([labels[example] for example in ids], snapshot.classes),
        candidate=np.zeros((0, len(snapshot.classes))),
        batches=batches,
        newest=snapshot.batches[-1] if snapshot.batches else None,
        facts=facts,
    )


def champion_accuracy(store: Store, config: Pipeline) -> float | None:
    """The champion's accuracy on the holdout, as the newest run that scored it tells; None where none did."""
    champion = champion_log.champion(champion_log.promotions(store, config.name))
    if champion is None:
        return None
    metrics = champion_metrics.newest(store, config.name, champion.version, recording.runs(store, config.name))
    return (metrics or {}).get("accuracy")


def discordance_seen(store: Store, config: Pipeline) -> Seen:
    """Candidate against champion in the newest run that scored two versions; else an assumption, named.

    The assumption: two independent models that are right with the newest version's out-of-fold
    probability p of the true label disagree in being right on 2 mean(p (1 - p)) of the examples. Where the two never
    differed on n examples it is the one-sided 95% limit of Clopper and Pearson (1934), 1 - 0.05^(1/n).
    Raises LeptonflowError where there is neither.
    """
    for run in reversed(recording.runs(store, config.name)):
        found = _compared(store, config.name, run["run_id"])
        if found is None:
            continue
        differ, n = _discordant(_read(store, found.predictions), _read(store, found.champion_predictions))
        if not n:
            continue
        where = f"{found.version} against the champion {found.champion} on the holdout of run {found.run_id}"
        if differ:
            return Seen(differ / n, where, None)
        told = (
            f"the two were right on the same {counted(n, 'example')}, so the discordance is assumed to be the most "
            "that this leaves possible at 95% confidence; --discordance D gives another"
        )
        return Seen(1 - 0.05 ** (1 / n), where, told)
    return _assumed(store, config)


def _compared(store: Store, pipeline: str, run_id: str) -> Evaluation | None:
    """The run's last evaluation, if it holds the predictions of two versions."""
    found = champion_metrics.last_evaluation(store, pipeline, run_id)
    return None if found is None or found.champion_predictions is None or found.champion == found.version else found


def _discordant(candidate: pa.Table, champion: pa.Table) -> tuple[int, int]:
    """(on how many examples exactly one of the two is right, of how many)."""
    rights = []
    for table in (candidate, champion):
        columns = (table[name].to_pylist() for name in ("example_id", "label", "predicted"))
        rights.append({example: label == said for example, label, said in zip(*columns, strict=True)})
    shared = rights[0].keys() & rights[1].keys()
    return sum(rights[0][e] != rights[1][e] for e in shared), len(shared)


def _assumed(store: Store, config: Pipeline) -> Seen:
    import numpy as np

    versions = packages.versions(store, config.name)
    if not versions:
        raise _nothing(config, "has no trained version yet", "--discordance D")
    version = versions[-1].version
    chances: list[float] = []
    for folder in store.folders(store_keys.fits_folder(config.name, version)):
        if not folder.startswith("fold-"):
            continue
        fit = model_fits.fit_result(store, config.name, version, int(folder.removeprefix("fold-")))
        for file in fit.files if fit else ():
            if file.key.endswith("oof.parquet"):
                chances += _read(store, file)["probability_true"].to_pylist()
    if not chances:
        raise _nothing(config, f"has no out-of-fold predictions of version {version}", "--discordance D")
    value = simulation.independent_discordance(np.asarray(chances, np.float64))
    if not 0 < value <= 1:
        raise LeptonflowError(
            f"every out-of-fold prediction of {version} has the probability 0 or 1, which tells no discordance",
            expected="probabilities between them", hint="Give one with --discordance D",
        )  # fmt: skip
    assumption = (
        "no run has scored a candidate beside another champion yet, so the discordance is assumed to be "
        "2 mean(p (1 - p)), p the out-of-fold probability of the true label "
        f"over {counted(len(chances), 'example')} of version {version}"
    )
    return Seen(value, f"out-of-fold predictions of {version}", assumption)


def _read(store: Store, file: ObjectRef | None) -> pa.Table:
    """A file of predictions, its bytes held against the recorded sha256. Raises Damaged."""
    assert file is not None
    return parquet.read(recorded(store, file.key, file.sha256))


def _nothing(config: Pipeline, why: str, option: str) -> LeptonflowError:
    return LeptonflowError(
        f"{config.name} {why}", expected="a finished run to read it from", received="none",
        hint=f"Retrain, or give {option}",
    )  # fmt: skip
