"""Whether a run has finished on a dataset's head: by what it was asked for, code apart."""

from __future__ import annotations

import json
from typing import Any

from leptonflow.runs import planning
from leptonflow.runs.heads import Heads
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from tests.batches import CONFIG

CONTENT = "c" * 64
SNAPSHOT = "c" * 12


def finished(store: Store, run: str, **manifest: Any) -> None:
    store.create(f"runs/{CONFIG.name}/{run}/manifest.json", json.dumps(manifest).encode())


def changed(**keys: Any) -> Pipeline:
    return CONFIG.model_copy(update=keys)


def test_data_and_configuration_count_and_what_trains_nothing_else_does_not() -> None:
    asked = planning.asked(CONFIG, CONTENT)
    training = CONFIG.training.model_copy(update={"epochs": CONFIG.training.epochs + 1})
    others = {planning.asked(CONFIG, "d" * 64), planning.asked(changed(training=training), CONTENT),
              planning.asked(changed(gate=CONFIG.gate + CONFIG.gate), CONTENT)}  # fmt: skip
    assert len(others) == 3 and asked not in others
    assert planning.asked(changed(debounce=1.0, schedule=None), CONTENT) == asked


def test_a_run_that_was_asked_for_the_same_is_found_and_each_manifest_is_read_once() -> None:
    store = open_store("memory://heads")
    heads, asked = Heads(store, CONFIG.name), planning.asked(CONFIG, CONTENT)
    finished(store, "other", asked="0" * 12, document={"snapshot": SNAPSHOT, "report": ""})
    store.create(f"runs/{CONFIG.name}/damaged/manifest.json", b"{")
    assert not heads.finished(asked, SNAPSHOT)
    finished(store, "same", asked=asked, document={"snapshot": SNAPSHOT, "report": ""})
    assert heads.finished(asked, SNAPSHOT)


def test_a_run_of_before_counts_by_its_snapshot() -> None:
    store = open_store("memory://heads-before")
    finished(store, "old", document={"snapshot": SNAPSHOT, "report": ""})
    assert Heads(store, CONFIG.name).finished(planning.asked(CONFIG, CONTENT), SNAPSHOT)
    assert not Heads(store, CONFIG.name).finished(planning.asked(CONFIG, "d" * 64), "d" * 12)
