"""A damaged champion, a gap in the log, two stores mixed up: each is one clear line, wherever it is met."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli import status_tables
from leptonflow.evaluation import champion_predictions
from leptonflow.registry import champion_log, intact_champions, manual_decisions
from leptonflow.runs import comparison, pipeline_status, recording, run_explanation
from leptonflow.storage import commit_log as commits
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, LeptonflowError, NotFound
from schemas.records import Verdict
from tests.run_examples import make
from tests.small_packages import PIPELINE, fit_to_run, plan, put

A, B, C = "a1" * 6, "b1" * 6, "c1" * 6


def promote(store: Store, version: str) -> dict[str, Any]:
    return manual_decisions.promote(store, PIPELINE, version, "because", "kim@lab", fit_to_run)


def rollback(store: Store, to: str | None = None) -> dict[str, Any]:
    return manual_decisions.rollback(store, PIPELINE, to, "because", "kim@lab", fit_to_run)


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def config(store: Store) -> Pipeline:
    """Three versions that became champion one after the other."""
    for version in (A, B, C):
        config = make(store, version=version, run_id=version[::-1]).config
        promote(store, version)
    return config


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def damage(store: Store, version: str, name: str, data: bytes | None) -> None:
    objects = store._objects  # type: ignore[attr-defined]
    key = f"models/{PIPELINE}/{version}/{name}"
    if data is None:
        del objects[key]
    else:
        objects[key] = data


BROKEN = [
    ("model.keras", b"other bytes"),
    ("model.keras", None),
    ("manifest.json", b"garbage"),
    ("manifest.json", None),
]


@pytest.mark.parametrize(("name", "data"), BROKEN)
def test_a_damaged_champion_is_said_and_the_last_whole_one_named(
    store: Store, config: Pipeline, image: Path, name: str, data: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(store, C, name, data)
    damage(store, B, "model.keras", b"other bytes")
    back = f"The newest undamaged one is {A}: `leptonflow rollback {PIPELINE} --to {A} --reason TEXT`"
    with pytest.raises(Damaged, match=f"the package of {C} is damaged: .*{C}") as raised:
        champion_predictions.predict(store, config, [image])
    assert raised.value.hint == back
    document = pipeline_status.status(store, config)
    assert document["champion"] == C, "the log is right: no other is made champion silently"
    assert f"{C}/{name}" in document["damage"] or f"no version {C}" in document["damage"]
    assert back in document["damage"]
    status_tables.status(PIPELINE, PIPELINE, document)
    assert A in "".join(capsys.readouterr().out.split())
    # The way back that was named is one.
    assert rollback(store, A)["champion"] == A
    assert pipeline_status.status(store, config)["damage"] is None or name == "manifest.json"


def test_a_damaged_version_is_not_promoted_and_the_champion_stays(store: Store, config: Pipeline) -> None:
    damage(store, B, "model.keras", b"other bytes")
    with pytest.raises(Damaged, match=rf"{B} is damaged: .*{B}/model\.keras.*The champion {C} is undamaged, and stays"):
        promote(store, B)
    with pytest.raises(Damaged, match=rf"{B}/model\.keras.*The newest undamaged one is {A}"):
        rollback(store)
    damage(store, A, "manifest.json", b"garbage")
    with pytest.raises(Damaged, match=rf"{A} is damaged: .*{A}/manifest\.json"):
        promote(store, A)
    damage(store, C, "model.keras", None)
    with pytest.raises(Damaged, match="No other earlier champion is undamaged"):
        promote(store, B)
    assert [row["version"] for row in champion_log.history(champion_log.promotions(store, PIPELINE))] == [A, B, C]


@pytest.mark.parametrize(("name", "data"), BROKEN[:3])
def test_to_promote_the_champion_itself_says_that_it_is_damaged(
    store: Store, config: Pipeline, name: str, data: bytes | None
) -> None:
    assert promote(store, C) == {"champion": C, "record": None}
    damage(store, C, name, data)
    with pytest.raises(Damaged, match=rf"{C} is damaged: .*{C}/{name}") as raised:
        promote(store, C)
    assert (
        raised.value.hint == f"The newest undamaged one is {B}: `leptonflow rollback {PIPELINE} --to {B} --reason TEXT`"
    )


def test_a_manifest_that_is_garbage_hides_no_other_version(
    store: Store, config: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(store, A, "manifest.json", b"garbage")
    rows = pipeline_status.models(store, config)
    assert [(row["version"], row["champion"]) for row in rows] == [(A, False), (B, False), (C, True)]
    assert f"{A}/manifest.json" in rows[0]["damage"] and rows[0]["cv"] is None
    assert [row["damage"] for row in rows[1:]] == [None, None]
    assert list(rows[0]) == list(rows[1])
    document = pipeline_status.status(store, config)
    assert document["newest"] == C and f"{A}/manifest.json" in document["damage"]
    with pytest.raises(NotFound, match=rf"has no version {'0' * 12}.*one of {C}, {B}, {A}"):
        promote(store, "0" * 12)


def test_a_whole_champion_and_none_have_no_damage(store: Store, config: Pipeline) -> None:
    assert intact_champions.champion_damage(store, PIPELINE, champion_log.promotions(store, PIPELINE)) is None
    assert intact_champions.champion_damage(store, "other", champion_log.promotions(store, "other")) is None
    assert pipeline_status.status(store, config)["damage"] is None


def test_a_run_that_cannot_be_read_hides_neither_the_champion_nor_another_run(store: Store, config: Pipeline) -> None:
    for version in (A, B):
        run = make(store, version=version, run_id=version[::-1])
        recording.record(store, run.config, run.plan, run.results())
    assert pipeline_status.status(store, config)["last_run"]["version"] == B
    key = f"runs/{PIPELINE}/{B[::-1]}/manifest.json"
    store._objects[key] = b"garbage"  # type: ignore[attr-defined]
    document = pipeline_status.status(store, config)
    assert (document["champion"], document["last_run"], document["metrics"]) == (C, None, None)
    assert key in document["damage"]
    assert run_explanation.explain(store, config, A[::-1])["version"] == A
    for ask in (lambda: run_explanation.explain(store, config), lambda: pipeline_status.runs(store, config)):
        with pytest.raises(Damaged, match=key):
            ask()
    del store._objects[f"runs/{PIPELINE}/{A[::-1]}/report.html"]  # type: ignore[attr-defined]
    with pytest.raises(Damaged, match=r"report\.html is missing, though the run is finished"):
        pipeline_status.report(store, A[::-1])
    damage(store, C, "model.keras", None)
    assert C in pipeline_status.status(store, config)["damage"], "the champion's own comes first"


# --- the log


def test_records_that_are_lost_at_the_end_of_the_log_are_said(store: Store, config: Pipeline) -> None:
    """They leave no gap, and an earlier champion would be the champion again without a word."""
    run = make(store, version=C, run_id=C[::-1])
    recording.record(store, run.config, run.plan, run.results())
    assert pipeline_status.status(store, config)["damage"] is None
    for number, champion in ((3, B), (2, A), (1, None)):
        del store._objects[f"promotions/{PIPELINE}/log/{number:08d}.json"]  # type: ignore[attr-defined]
        commits._verified.clear()
        document = pipeline_status.status(store, config)
        assert document["champion"] == champion
        assert f"promotions/{PIPELINE}/log is shorter than it was" in document["damage"]
        assert f"makes {C} the champion, as it was after run {C[::-1]}" in document["damage"]


EVERY: list[Callable[[Store, Pipeline], object]] = [
    pipeline_status.status,
    pipeline_status.models,
    pipeline_status.history,
    lambda store, config: comparison.version(store, config.name, A),
    lambda store, config: comparison.compare(store, config.name, A, B),
    lambda store, config: champion_predictions.predict(store, config, []),
    lambda store, config: promote(store, A),
    lambda store, config: rollback(store),
]


@pytest.mark.parametrize("ask", EVERY)
def test_a_gap_in_the_log_is_one_line_and_stops_everything(store: Store, config: Pipeline, ask: Any) -> None:
    key = f"promotions/{PIPELINE}/log/00000002.json"
    del store._objects[key]  # type: ignore[attr-defined]
    commits._verified.clear()
    with pytest.raises(Damaged) as raised:
        ask(store, config)
    line = raised.value.line()
    assert f"{key} is missing, though record 3 is there" in line and "Put the missing record back" in line
    assert "\n" not in line
    assert f"promotions/{PIPELINE}/log/00000004.json" not in dict(store.list("promotions"))


@pytest.mark.parametrize("ask", [*EVERY, lambda store, config: promote(store, C)])
def test_a_long_gap_never_makes_an_earlier_champion_the_champion(store: Store, config: Pipeline, ask: Any) -> None:
    """A gap longer than a read looks ahead: the log would seem to end before it."""
    for _ in range(commits.WINDOW):
        rollback(store, B), rollback(store, A)
    log = f"promotions/{PIPELINE}/log"
    last = champion_log.promotions(store, PIPELINE).number
    for number in range(3, last):
        del store._objects[f"{log}/{number:08d}.json"]  # type: ignore[attr-defined]
    commits._verified.clear()
    kept = {key for key, _ in store.list("promotions")}
    with pytest.raises(Damaged, match=f"00000003.json is missing, though record {last} is there"):
        ask(store, config)
    assert {key for key, _ in store.list("promotions")} == kept


def test_a_run_never_decides_over_a_long_gap(store: Store, config: Pipeline) -> None:
    for _ in range(commits.WINDOW):
        rollback(store, B), rollback(store, A)
    log = f"promotions/{PIPELINE}/log"
    for number in range(4, champion_log.promotions(store, PIPELINE).number):
        del store._objects[f"{log}/{number:08d}.json"]  # type: ignore[attr-defined]
    commits._verified.clear()
    put(store, "d1" * 6)
    verdict = Verdict(
        run_id="d2" * 6, version="d1" * 6, verdict="promoted", rules=(), sentence="s", champion=C, against=3
    )
    with pytest.raises(Damaged, match=r"00000004\.json is missing"):
        champion_log.settle(store, plan("d1" * 6), verdict, "0" * 64)
    assert not list(store.list(f"runs/{PIPELINE}/{'d2' * 6}")), "nor is there a decision"


@pytest.mark.parametrize("ask", EVERY)
def test_two_stores_mixed_up_are_one_line_that_names_both(tmp_path: Path, ask: Any) -> None:
    """A folder of another store's, copied over by hand: its records name the store that they were committed to."""
    stores = [open_store(str(tmp_path / name)) for name in ("mine", "other")]
    for store in stores:
        for version in (A, B):
            put(store, version)
            promote(store, version)
    config = make(open_store(f"memory://{uuid.uuid4().hex}")).config
    log = tmp_path / "mine" / "promotions" / PIPELINE / "log"
    shutil.copy(tmp_path / "other" / "promotions" / PIPELINE / "log" / "00000002.json", log / "00000002.json")
    commits._verified.clear()
    with pytest.raises(LeptonflowError) as raised:
        ask(stores[0], config)
    line = raised.value.line()
    ids = [champion_log.promotions(stores[1], PIPELINE).entries[0].store]
    ids.append(json.loads(stores[0].get("store.json"))["id"])
    assert f"promotions/{PIPELINE}/log/00000002.json does not belong here" in line
    assert f"Expected: store {ids[1]}. Received: store {ids[0]}" in line
    assert "Two stores were mixed up" in line
    assert not (log / "00000003.json").exists()
