"""A small real dataset on a store, for tests that train: squares of light whose place tells the class."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from leptonflow.core.hashing import short
from leptonflow.data.dataset import dataset_contents, dataset_state, part_files
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.records import Plan, SnapshotRef

CLASSES = ("left", "middle", "right")
COUNT = 140  # 96 of them train, 64 or 48 in a fold: whole batches of 16. Each other size would be traced as well


def pipeline(**changes: Any) -> Pipeline:
    """A pipeline whose model trains in a second; `changes` are keys of the YAML."""
    document: dict[str, Any] = {
        "name": "squares",
        "workload": "image_classification",
        "input": [12, 12, 1],
        "model": {"filters": [4, 8], "dense": 8, "dropout": 0.25},
        "training": {"epochs": 2, "batch_size": 16, "folds": 3, "seed": 0},
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.5}],
        "serving": {"onnx": False},  # seconds of each package, and the subject of other tests
    }
    return Pipeline.model_validate({**document, **changes})


def land(store: Store, config: Pipeline, count: int = COUNT, classes: tuple[str, ...] = CLASSES) -> Plan:
    """`count` examples as one part on the store, and the plan that trains on them."""
    height, width, channels = config.input
    random = np.random.default_rng(0)
    accepted = []
    for number in range(count):
        label = number % len(classes)
        pixels = random.integers(0, 100, (height, width, channels), np.uint8)
        third = width // len(classes)
        pixels[:, label * third : (label + 1) * third] += np.uint8(120)
        data = pixels.tobytes()
        digest = hashlib.sha256(data).hexdigest()
        accepted.append(
            part_files.Accepted(digest, digest, classes[label], f"{number}.png", None, None, {"n": 1}, data)
        )
    preprocessing = dataset_state.preprocessing(config)
    part = part_files.write_part(store, config, "first", preprocessing, accepted)
    assert part is not None
    content = dataset_contents.content_digest([(a.id, a.label) for a in accepted], preprocessing)
    snapshot = SnapshotRef(
        pipeline=config.name,
        number=1,
        snapshot=short(content),
        content=content,
        classes=classes,
        preprocessing=preprocessing,
        holdout=config.holdout.fraction,
        parts=(part,),
        batches=("first",),
        examples=count,
    )
    return plan_of(config, snapshot, version="a" * 12, run_id="b" * 12)


def plan_of(config: Pipeline, snapshot: SnapshotRef, version: str, run_id: str) -> Plan:
    """A plan of that version and run."""
    return Plan(
        pipeline=config.name, attempt=0, version=version, run_id=run_id, snapshot=snapshot, waiting=(), trained=False,
        finished=False,
    )  # fmt: skip
