"""The warnings of batches that `ingest` added: told again to whoever retrains, each batch in one line and once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from leptonflow.core import person, progress
from leptonflow.data.dataset import admission, dataset_state
from leptonflow.data.ingest.landing import Index
from leptonflow.runs import batch_warnings, rejections
from leptonflow.storage.store import Store
from tests.batches import CONFIG, land, put


@pytest.mark.usefixtures("admission_tools")
def test_a_retraining_tells_each_new_batchs_warnings_once(place: Store, source: Path) -> None:
    put(source, *(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(10)), "caat/0.png")
    put(source.parent / "second", "cat/a.png", "Dog/b.png", seed=50)
    put(source.parent / "third", "cat/c.png", seed=70)
    config = CONFIG.model_copy(update={"quarantine": CONFIG.quarantine.model_copy(update={"limit": 1.0})})
    for name, folder in (("first", source), ("second", source.parent / "second"), ("third", source.parent / "third")):
        index = Index(classes=None if name == "first" else ("caat", "cat", "dog"))
        admission.admit(place, config, land(place, folder, name, index).batch)
    first, second = batch_warnings.of_new_batches(place, "pets")
    assert first.startswith("batch first: classes with few examples: 'caat' has 1 (spelt nearly like 'cat'")
    assert second.startswith("batch second: ") and "look alike" in second
    assert batch_warnings.of_new_batches(place, "pets", ["first"]) == [second]
    assert batch_warnings.of_new_batches(place, "pets", ["first"], [second.removeprefix("batch second: ")]) == []
    assert batch_warnings.of_new_batches(place, "pets", reader=person.person()) == []
    mine = batch_warnings.told_to(place, "pets", person.person())
    assert second.removeprefix("batch second: ") in mine and not batch_warnings.told_to(place, "pets", "another")

    rejections.record(place, "pets", dataset_state.snapshots(place, "pets").entries[0].body["snapshot"], ["first"], "x")
    assert batch_warnings.of_new_batches(place, "pets") == [second]
    at = dataset_state.snapshots(place, "pets").entries[2].body["snapshot"]
    rejections.record(place, "pets", at, [], "too few")
    assert batch_warnings.of_new_batches(place, "pets") == []


def test_retrain_does_not_repeat_at_its_end_what_was_said_of_its_batch(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli import main

    def retrain(*given: Any) -> dict[str, Any]:
        progress.note("batch first: 2 look alike; 5 of 9 texts are long")
        return {"verdict": "promoted", "warnings": ["5 of 9 texts are long", "a single group", "said by ingest"]}

    monkeypatch.setattr(batch_warnings, "told_to", lambda *_: {"said by ingest"})
    monkeypatch.setattr("flows.local_run.retrain", retrain)
    source.parent.mkdir(exist_ok=True)
    (source.parent / "pets.yaml").write_text(yaml.safe_dump(CONFIG.model_dump(mode="json", exclude_unset=True)))
    assert main.retrain(str(source.parent / "pets.yaml"), True, (source.parent / "store").as_uri(), True) == 0
    assert capsys.readouterr().err.splitlines() == [
        "leptonflow: batch first: 2 look alike; 5 of 9 texts are long", "leptonflow: a single group",
    ]  # fmt: skip


@pytest.mark.usefixtures("admission_tools")
def test_the_split_tells_them_to_whoever_was_not_told_and_validate_says_its_own_in_one_line(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leptonflow.core import deadlines
    from leptonflow.storage.address import open_store
    from tasks.split import split
    from tasks.validate import validate

    store = open_store((source.parent / "store").as_uri())
    put(source, *(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(10)), "Dog/0.png", "caat/0.png")
    land(store, source, "first")
    told: list[str] = []
    monkeypatch.setenv("LEPTONFLOW_USER", "ada")
    with progress.listen(None, told.append):
        validate.fn(store.uri, CONFIG, "first", deadlines.start(CONFIG, "validate"))
        snapshot = dataset_state.state(CONFIG, dataset_state.snapshots(store, "pets"))
        assert snapshot is not None
        split.fn(store.uri, CONFIG, snapshot, ["first"])
        (line,) = told
        assert "'Dog', 'dog' look alike" in line and "; classes with few examples: " in line
        split.fn(store.uri, CONFIG, snapshot, [])
        assert told == [line], "ada was told when the batch came"
        with monkeypatch.context() as deployed:
            deployed.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "5")  # what a watcher starts is read by whoever looks
            split.fn(store.uri, CONFIG, snapshot, [])
        monkeypatch.setenv("LEPTONFLOW_USER", "bob")
        split.fn(store.uri, CONFIG, snapshot, [])
    assert told == [line] * 3
