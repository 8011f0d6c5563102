"""How a snapshot is split: holdout and folds."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from leptonflow.core import capacity
from leptonflow.data.dataset.dataset_contents import tables
from leptonflow.data.dataset.part_files import read_columns
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.records import SnapshotRef, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def in_holdout(example: str, fraction: float) -> bool:
    """u(sha256("holdout" + id)) < fraction; u reads the first 64 bits as a number in [0, 1)."""
    value = int.from_bytes(hashlib.sha256(b"holdout" + example.encode()).digest()[:8], "big")
    return value / 2**64 < fraction


def split(store: Store, config: Pipeline, snapshot: SnapshotRef) -> Split:
    """Counts of training and holdout examples, and the sentence that says why they cannot be trained.

    Raises ConfigurationError where they do not fit into memory.
    """
    train: Counter[str] = Counter(dict.fromkeys(snapshot.classes, 0))
    holdout: Counter[str] = Counter(dict.fromkeys(snapshot.classes, 0))
    for table in tables(store, snapshot.parts, snapshot.changes, ("id", "label")):
        for example, label in zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True):
            (holdout if in_holdout(example, snapshot.holdout) else train)[label] += 1
    folds = config.training.folds
    short_of = {name: train[name] for name in snapshot.classes if train[name] < folds}
    rejected = None
    if not holdout.total():
        rejected = f"the holdout is empty: {train.total()} examples, none of which fell into {snapshot.holdout:g}"
    elif short_of:
        counts = ", ".join(f"{name}: {count}" for name, count in short_of.items())
        rejected = f"{folds} folds need at least {folds} training examples of each class; there are too few of {counts}"
        if empty := [name for name, count in short_of.items() if not count and not holdout[name]]:
            kept = ", ".join(name for name in snapshot.classes if name not in empty)
            rejected += f". There is no example of {', '.join(empty)}: `classes: [{kept}]` in the YAML goes without"
    found = Split(
        train=train.total(),
        holdout=holdout.total(),
        train_per_class=dict(train),
        holdout_per_class=dict(holdout),
        rejected=rejected,
        warnings=_remarks(store, config, snapshot),
    )
    workload = catalog.load(config.workload)
    capacity.check_training(workload.codec.bytes(config.input), workload.told(config.input).how, found)
    return found


def _remarks(store: Store, config: Pipeline, snapshot: SnapshotRef) -> tuple[str, ...]:
    """What the workload says of these examples at this input."""
    facts = (fact for part in snapshot.parts for fact in read_columns(store, part, ("facts",))["facts"].to_pylist())
    return tuple(catalog.load(config.workload).remarks(list(facts), config.input))


def folds(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """The fold number of each training example: stratified, shuffled with `seed`."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    numbers = np.zeros(len(labels), np.int64)
    splitter = StratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        numbers[held] = number
    return numbers
