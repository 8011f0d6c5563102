"""How a snapshot is split: holdout and folds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.core import capacity, declared_files
from leptonflow.data.dataset.dataset_contents import tables
from leptonflow.data.dataset.part_files import read_columns
from leptonflow.data.ingest import rare_labels
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas import own_model
from schemas.config import AgainstChampion, Pipeline
from schemas.errors import ConfigurationError
from schemas.metrics import class_of
from schemas.records import SnapshotRef, Split
from schemas.text import counted
from schemas.training import unknown_classes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


ALL = ("all",)  # where there are no classes, all examples are of one kind
LEAST_GROUPS = 2  # of a holdout
FEW_GROUPS = 10  # less is worth a warning


def in_holdout(group: str, fraction: float) -> bool:
    """u(sha256("holdout" + group)) < fraction; u reads the first 64 bits as a number in [0, 1).

    group  the example's id in a pipeline without groups
    """
    value = int.from_bytes(hashlib.sha256(b"holdout" + group.encode()).digest()[:8], "big")
    return value / 2**64 < fraction


def split(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Split:
    """Counts of training and holdout examples, and the sentence that says why they cannot be trained.

    Raises ConfigurationError where they or one step do not fit into memory, and where `training`, `stop_early_if` or
    `tune` names a class that is none.
    """
    _check_classes(config, snapshot)
    kinds = snapshot.classes or ALL
    train: Counter[str] = Counter(dict.fromkeys(kinds, 0))
    holdout: Counter[str] = Counter(dict.fromkeys(kinds, 0))
    unit = "id" if snapshot.group is None else "group"
    of_class: dict[str, set[str]] = {name: set() for name in kinds}
    held: set[str] = set()
    for table in tables(store, snapshot.parts, snapshot.changes, tuple(dict.fromkeys(("id", "label", unit)))):
        for group, label in zip(table[unit].to_pylist(), table["label"].to_pylist(), strict=True):
            kind = label if snapshot.classes else ALL[0]
            if in_holdout(group, snapshot.holdout):
                holdout[kind] += 1
                held.add(group)
            else:
                train[kind] += 1
                of_class[kind].add(group)
    trained = set[str]().union(*of_class.values())
    of = "examples" if snapshot.group is None else f"examples in {counted(len(trained), 'group')}"
    rejected = None
    if not holdout.total():
        rejected = (
            f"the holdout is empty: {train.total()} {of}, none of which fell into {snapshot.holdout:g}: ingest more "
            f"{'examples' if snapshot.group is None else 'groups'}, or start a pipeline of another name with a larger "
            "holdout.fraction"
        )
    elif snapshot.group is not None and len(held) < LEAST_GROUPS:
        rejected = (
            f"the holdout has a single group of {len(held) + len(trained)}, which says nothing of others: ingest more "
            "groups, or start a pipeline of another name with a larger holdout.fraction"
        )
    else:
        counts = train if snapshot.group is None else Counter({name: len(each) for name, each in of_class.items()})
        rejected = _too_few(config, snapshot, counts, train + holdout)
    grouped = {} if snapshot.group is None else {"train_groups": len(trained), "holdout_groups": len(held)}
    found = Split(
        train=train.total(),
        holdout=holdout.total(),
        train_per_class=dict(train) if snapshot.classes else {},
        holdout_per_class=dict(holdout) if snapshot.classes else {},
        rejected=rejected,
        warnings=(
            *_remarks(store, config, snapshot),
            *_few(len(held) if grouped else None),
            *_large_batch(config, train.total()),
            *_unread(config),
            *declared_files.undeclared(config),
        ),
        **grouped,
    )
    example_place(config, snapshot)
    check_step(config)
    return found


def check_step(config: Pipeline) -> None:
    """Raises ConfigurationError where one step of the pipeline's training cannot be computed in the memory."""
    workload = catalog.load(config.workload)
    capacity.check_step(workload.step_bytes(config), workload.told(config.input).how, config.training)


def example_place(config: Pipeline, snapshot: SnapshotRef) -> capacity.Place:
    """Where the examples of training and holdout lie while models are trained and evaluated, by what all of them take.

    Raises ConfigurationError where they fit nowhere.
    """
    workload = catalog.load(config.workload)
    spoolable = workload.codec.empty(0, config.input).dtype != object
    each, how = workload.codec.bytes(config.input), workload.told(config.input).how
    return capacity.place(each, how, snapshot.examples, spoolable)


def _large_batch(config: Pipeline, train: int) -> list[str]:
    """A sentence where one step of a fit has all of its examples: few epochs then are hardly any training."""
    size = config.training.batch_size
    if not 0 < train < size:
        return []
    return [f"training.batch_size is {size}, but there are {train} training examples: each epoch is a single step"]


def _unread(config: Pipeline) -> list[str]:
    """A sentence where the YAML sets keys of the built-in models, and a function of the user builds the model."""
    keys = [f"model.{name}" for name in own_model.unread(config.model)]
    return [f"not read, because model.function builds the model: {', '.join(keys)}"] if keys else []


def _unknown(config: Pipeline, classes: Sequence[str]) -> list[tuple[str, str]]:
    """(key, class) of each key outside the gate that names a class which is none of these."""
    unknown = unknown_classes(config.training, classes)
    for section in ("stop_early_if", "tune"):
        name = class_of(getattr(getattr(config, section), "metric", None))
        unknown += [] if name is None or name in classes else [(f"{section}.metric", name)]
    return unknown


def _check_classes(config: Pipeline, snapshot: SnapshotRef) -> None:
    for key, name in _unknown(config, snapshot.classes):
        raise ConfigurationError(
            f"{key} names a class that is not there",
            expected=f"one of the classes {', '.join(snapshot.classes)}",
            received=name,
            hint="Remove it or fix its name",
        )


def few_groups(config: Pipeline, groups: Collection[str], fraction: float) -> list[str]:
    """A sentence where the dataset's groups are too few to train on, or for a candidate to pass; else none."""
    if config.group is None:
        return []
    from leptonflow.statistics import clusters

    held = sum(in_holdout(group, fraction) for group in groups)
    levels = [rule.confidence for rule in config.gate if isinstance(rule, AgainstChampion)]
    wanted = max([LEAST_GROUPS, *map(clusters.enough, levels)])
    short = []
    if len(groups) - held < config.training.folds:
        short.append(f"{config.training.folds} folds need at least {config.training.folds} to train on")
    if held < wanted:
        short.append(f"the gate needs at least {wanted} in the holdout to tell a candidate from a champion")
    if not short:
        return []
    there = f"{counted(len(groups), 'group')}, {held} of them in the holdout"
    return [f"the dataset has {there}: {', and '.join(short)}; ingest more groups"]


def _few(groups: int | None) -> list[str]:
    """A sentence where the holdout has so few groups that its numbers are mostly those of these groups."""
    if groups is None or groups >= FEW_GROUPS:
        return []
    has = f"the holdout has {counted(groups, 'group')}"
    return [f"{has}: every interval is wide, and few candidates can be shown to be as good"]


def _too_few(config: Pipeline, snapshot: SnapshotRef, train: Counter[str], examples: Counter[str]) -> str | None:
    """Why the folds cannot be made. train: training examples of each class, or the groups that have some."""
    folds = config.training.folds
    short_of = {name: train[name] for name in snapshot.classes or ALL if train[name] < folds}
    if not short_of:
        return None
    of = "training examples" if snapshot.group is None else "groups with training examples"
    if not snapshot.classes:
        return f"{folds} folds need at least {folds} {of}; there are {train[ALL[0]]}"
    near = {name: like for name, like in rare_labels.nearly(examples).items() if name in short_of}
    counts = ", ".join(
        f"{name}: {count}" + (f" ({rare_labels.like(near[name], examples)})" if name in near else "")
        for name, count in short_of.items()
    )
    rejected = f"{folds} folds need at least {folds} {of} of each class; there are too few of {counts}"
    if empty := [name for name in short_of if not examples[name]]:
        return f"{rejected}. There is no example of {', '.join(empty)}: {_without(config, snapshot, empty)}"
    fewer = ", or lower training.folds" if min(short_of.values()) > 1 else ""
    return (
        f"{rejected}. Ingest more of these{fewer}; where a label is a mistake, `ingest --correct` of the corrected "
        f"source puts it right, and then {_without(config, snapshot, list(near or short_of))}"
    )


def _without(config: Pipeline, snapshot: SnapshotRef, names: Sequence[str]) -> str:
    """How the YAML goes without these classes: `classes`, and the keys that name one of them."""
    kept = [name for name in snapshot.classes if name not in names]
    metrics = [(n, getattr(rule, "metric", None)) for n, rule in enumerate(config.gate)]
    keys = [f"gate.{n} ({metric})" for n, metric in metrics if class_of(metric) in names]
    keys += [key for key, _ in _unknown(config, kept)]
    also = f"; remove what names {'it' if len(names) == 1 else 'them'} too: {', '.join(keys)}" if keys else ""
    return f"`classes: [{', '.join(kept)}]` in the YAML goes without{also}"


def _remarks(store: Store, config: Pipeline, snapshot: SnapshotRef) -> tuple[str, ...]:
    """What the workload says of these examples at this input."""
    facts = (fact for part in snapshot.parts for fact in read_columns(store, part, ("facts",))["facts"].to_pylist())
    return tuple(catalog.load(config.workload).remarks(list(facts), config.input))


def folds(labels: NDArray[Any], count: int, seed: int, groups: Sequence[str] | None = None) -> NDArray[np.int64]:
    """The fold number of each training example, shuffled with `seed`; a group lies in one fold.

    Stratified where the labels are class numbers.
    """
    import numpy as np
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    numbers = np.zeros(len(labels), np.int64)
    kinds = (StratifiedKFold, StratifiedGroupKFold) if labels.dtype.kind == "i" else (KFold, GroupKFold)
    kind = kinds[groups is not None]
    splitter = kind(n_splits=count, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        numbers[held] = number
    return numbers
