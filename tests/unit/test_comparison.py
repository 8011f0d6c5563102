"""One version laid open and two side by side, from made-up runs on a memory store, by the engine and the command."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from leptonflow.core.hashing import canonical
from leptonflow.registry import manual_decisions
from leptonflow.runs import comparison, recording
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import Damaged, NotFound, UsageError
from schemas.records import Hardware, Lineage, ModelManifest
from tests.run_examples import Run, make
from tests.small_packages import fit_to_run

A, B = "a1" * 6, "b1" * 6


def finish(store: Store, run: Run) -> None:
    recording.record(store, run.config, run.plan, run.results())


def with_lineage(store: Store, run: Run, **changed: Any) -> None:
    """Give the version a lineage, as packaging does."""
    hardware = Hardware(cpus=2, cpu="A", machine="x86_64", system="Linux 6", backend="tensorflow", accelerators=())
    lineage = Lineage(
        snapshot="5a" * 32, code=run.manifest.code, lock=None, git_commit="c0ffee", git_dirty=False, seed=0,
        hardware=hardware, libraries={"keras": "3.15.1", "python": "3.11.9"}, started_at=None,
        finished_at="2026-11-24T10:00:39.000000Z",
    )  # fmt: skip
    manifest = run.manifest.model_copy(update={"lineage": lineage.model_copy(update=changed)})
    key = f"models/{run.config.name}/{run.manifest.version}/manifest.json"
    store._objects[key] = canonical(manifest)  # type: ignore[attr-defined]


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def two(store: Store) -> Run:
    """The version A with its run, then B, which became champion."""
    first, second = make(store, version=A, run_id="a2" * 6), make(store, version=B, run_id="b2" * 6, seed=1)
    with_lineage(store, first)
    with_lineage(store, second, git_commit="decade", git_dirty=True)
    finish(store, first)
    finish(store, second)
    for version in (A, B):
        manual_decisions.promote(store, "digits", version, "because", "kim@lab", fit_to_run)
    return second


def test_everything_of_one_version(store: Store, two: Run) -> None:
    found = comparison.version(store, two.config.name, B)
    assert (found["version"], found["champion"], found["damage"]) == (B, True, None)
    assert [(row["number"], row["previous"], row["against"]) for row in found["promotions"]] == [(2, A, 1)]
    assert found["metrics"] == {"cv": two.manifest.cv, "holdout": two.evaluation.candidate_scores.metrics}
    assert found["verdict"]["run_id"] == "b2" * 6
    assert found["lineage"]["git_commit"] == "decade"
    assert found["files"] == {"model.keras": {"bytes": 11, "sha256": two.manifest.files[0].sha256}}
    assert not comparison.version(store, two.config.name, A)["champion"]
    json.dumps(found, allow_nan=False)


def test_two_versions_side_by_side(store: Store, two: Run) -> None:
    found = comparison.compare(store, two.config.name, A, B)
    assert found["versions"] == [A, B]
    differing = {each["key"]: (each["left"], each["right"]) for each in found["differences"]}
    assert differing["lineage.git_commit"] == ("c0ffee", "decade")
    assert differing["lineage.git_dirty"] == (False, True)
    cv = [found[side]["metrics"]["cv"]["accuracy"]["mean"] for side in ("left", "right")]
    assert differing["metrics.cv.accuracy.mean"] == tuple(cv)
    assert not [key for key in differing if key.startswith(("config.", "data.", "classes", "files."))], (
        "these are equal"
    )
    assert comparison.compare(store, two.config.name, B, B)["differences"] == []


def test_a_version_from_before_lineage_was_kept(store: Store, two: Run) -> None:
    make(store, version="c1" * 6, run_id="c2" * 6)
    found = comparison.version(store, two.config.name, "c1" * 6)
    assert (found["lineage"], found["verdict"], found["metrics"]["holdout"]) == (None, None, None)
    differing = {each["key"] for each in comparison.compare(store, two.config.name, A, "c1" * 6)["differences"]}
    assert "lineage.git_commit" in differing


def test_damage_is_said_and_does_not_hide_the_rest(store: Store, two: Run) -> None:
    objects = store._objects  # type: ignore[attr-defined]
    objects[f"models/digits/{B}/model.keras"] = b"other bytes"
    found = comparison.version(store, two.config.name, B)
    assert f"models/digits/{B}/model.keras" in found["damage"]
    assert found["metrics"]["cv"] == two.manifest.cv
    objects[f"models/digits/{B}/manifest.json"] = b"garbage"
    with pytest.raises(Damaged, match=r"manifest\.json"):
        comparison.version(store, two.config.name, B)


def test_another_manifest_than_the_one_that_became_champion_is_damage(store: Store, two: Run) -> None:
    """As `rollback` to it says."""
    key = f"models/digits/{A}/manifest.json"
    other = json.loads(store.get(key)) | {"created_at": "2026-01-01T00:00:00+00:00"}
    store._objects[key] = canonical(other)  # type: ignore[attr-defined]
    assert f"{key} is not what was recorded" in comparison.version(store, two.config.name, A)["damage"]
    with pytest.raises(Damaged, match="is not what was recorded"):
        manual_decisions.rollback(store, "digits", A, "because", "kim@lab", fit_to_run)


def test_an_unknown_version_is_answered_with_those_that_there_are(store: Store, two: Run) -> None:
    for ask in (
        lambda v: comparison.version(store, two.config.name, v),
        lambda v: comparison.compare(store, two.config.name, A, v),
    ):
        with pytest.raises(NotFound, match=f"one of .*{A}"):
            ask("0" * 12)
        with pytest.raises(UsageError, match="not a version's name"):
            ask("../A")


def test_flat_paths_reach_into_lists_of_rules() -> None:
    document: dict[str, Any] = dict.fromkeys(comparison.SECTIONS)
    document["config"] = {"gate": [{"rule": "at_least", "value": 0.9}], "input": [28, 28, 1], "model": {}}
    found = comparison.flat(document)
    assert found["config.gate.0.rule"] == "at_least"
    assert (found["config.input"], found["config.model"]) == ([28, 28, 1], {})
    assert [comparison.text(v) for v in (None, 0.12345678, "x", [1, "ä"], True)] == [
        "-",
        "0.123457",
        "x",
        '[1, "ä"]',
        "true",
    ]


def test_a_manifest_keeps_its_lineage_through_json(store: Store, two: Run) -> None:
    data = store.get(f"models/digits/{B}/manifest.json")
    manifest = ModelManifest.model_validate_json(data)
    assert manifest.lineage is not None and canonical(manifest) == data


def test_what_one_side_alone_has_stands_in_its_section() -> None:
    assert comparison.keys({"config.a": 1, "files.a": 1}, {"config.b": 2}) == ["config.a", "config.b", "files.a"]
