"""Pipelines, contracts and command lines that are wrong: status 2, the key's path, and what may stand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bad_input.sources import CLASSES
from tests.e2e.helpers import call, good, ingest, pipeline, rows

GATE = {"rule": "at_least", "metric": "accuracy", "value": 0.5}


@pytest.mark.parametrize(
    ("keys", "path", "choices"),
    [
        ({"color": 1}, "color", ["classes", "training"]),
        ({"trainning": {}}, "trainning", ["Did you mean training"]),
        ({"training": {"epocs": 3}}, "training.epocs", ["epochs", "batch_size", "Did you mean epochs"]),
        ({"training": {"epochs": "ten"}}, "training.epochs", ["integer", "'ten'"]),
        ({"training": {"epochs": 0}}, "training.epochs", ["1"]),
        ({"training": {"folds": 1}}, "training.folds", ["2"]),
        ({"training": {"optimizer": "adan"}}, "training.optimizer", ["adam", "sgd"]),
        ({"training": 3}, "training", ["a mapping of epochs, batch_size", "3"]),
        ({"training": {"checkpoint": 5}}, "training.checkpoint", ["Expected: a mapping of minutes. Received: 5"]),
        ({"training": {"checkpoint": {"minutes": 0}}}, "training.checkpoint.minutes", ["Expected: greater than 0"]),
        ({"training": {"runner": {"name": "process", "memory": 4}}}, "training.runner.memory", ["500MB or 4GB"]),
        ({"training": {"augment": "flip"}}, "training.augment", ["Expected: a list. Received: 'flip'"]),
        ({"training": {"augment": ["flip"]}}, "training.augment.0", ["a mapping of flip, shift"]),
        ({"training": {"optimizer": {"ema": 0.9}, "learning_rate": 0.1}}, "training.learning_rate", ["within", "0.1"]),
        ({"training": {"optimizer": {"shedule": 1}}}, "training.optimizer.shedule", ["Did you mean schedule"]),
        ({"training": {"class_weights": {"bird": 2}}, "classes": CLASSES}, "training.class_weights.bird", ["cat, dog"]),
        ({"training": {"early_stopping": {"patience": 0}}}, "training.early_stopping.patience", ["1"]),
        ({"training": {"augment": [{"flp": "both"}]}}, "training.augment.0.flp", ["flip, shift", "Did you mean flip"]),
        ({"training": {"augment": [{"colour": 0.1}]}, "input": [8, 8, 1]}, "training.augment.0.colour", ["this input"]),
        ({"training": {"precision": "half"}}, "training.precision", ["bfloat16"]),
        ({"input": [8, 8, 2]}, "input.2", ["1 or 3"]),
        ({"input": [8, 8]}, "input.2", ["missing"]),
        ({"input": "8x8"}, "input", []),
        ({"workload": "images"}, "workload", ["image_classification"]),
        ({"name": "Small"}, "name", ["[a-z0-9]"]),
        ({"name": None}, "name", ["missing"]),
        ({"gate": None}, "gate", ["missing"]),
        ({"gate": []}, "gate", ["at_least", "fold_spread", "against_champion"]),
        ({"gate": [{**GATE, "metric": "acuracy"}]}, "gate.0.metric", ["accuracy", "log_loss", "recall[CLASS]"]),
        ({"gate": [GATE, {**GATE, "rule": "atleast"}]}, "gate.1", ["at_least", "at_most", "against_champion"]),
        ({"gate": [{**GATE, "on": "test"}]}, "gate.0.on", ["cv", "holdout"]),
        ({"gate": [{**GATE, "valu": 1}]}, "gate.0.valu", ["value", "metric"]),
        ({"gate": [{"rule": "at_least", "metric": "accuracy"}]}, "gate.0.value", ["missing"]),
        ({"gate": [{**GATE, "value": "0.9"}]}, "gate.0.value", ["number"]),
        ({"gate": GATE}, "gate", ["a list"]),
        ({"gate": ["at_least"]}, "gate.0", ["a rule of at_least"]),
        ({"gate": [{**GATE, "on": "holdout", "confidence": 0.5}]}, "gate.0.confidence", ["0.5"]),
        ({"gate": [{"rule": "slices", "margin": -0.1}]}, "gate.0.margin", ["0"]),
        ({"gate": [GATE], "looks": {"warm": 1}}, "looks.warm", ["Did you mean warn"]),
        (
            {"classes": CLASSES, "gate": [{**GATE, "metric": "recall[bird]"}]},
            "gate.0.metric",
            ["cat", "dog", "recall[bird]"],
        ),
        ({"classes": ["cat"]}, "classes", ["two"]),
        ({"classes": [1, 2]}, "classes.0", ["string"]),
        ({"holdout": {"fraction": 1.5}}, "holdout.fraction", ["less than 1"]),
        ({"quarantine": {"limit": -1}}, "quarantine.limit", ["0"]),
        ({"model": {"function": "my_model"}}, "model.function", ["module:function"]),
        ({"model": {"function": "os:system"}}, "model.function", ["os:system", "installed", "Python's own os"]),
        ({"model": {"function": "os.path:join"}}, "model.function", ["Python's own os"]),
        ({"model": {"function": "builtins:eval"}}, "model.function", ["Python's own builtins"]),
        ({"model": {"function": "test.support.os_helper:rmtree"}}, "model.function", ["Python's own test"]),
        ({"schedule": {"timezone": "UTC"}}, "schedule.cron", ["missing"]),
        ({"schedule": {"cron": "0 3 12,26 * 5#3"}}, "schedule.cron", ["Prefect can schedule", "never"]),
    ],
)
def test_a_wrong_yaml_names_the_keys_path_and_what_may_stand_there(
    tmp_path: Path, store: Path, keys: dict[str, Any], path: str, choices: list[str]
) -> None:
    file = pipeline(tmp_path, **keys)
    result = call("status", file, "--store", store, "--json")
    assert result.status == 2
    message = str(result.error["message"])
    assert str(file) in message and f" {path} " in message.replace(f"{file}: ", " ") + " ", message
    assert "(line " in message or (path in ("name", "gate") and "missing" in message)
    for choice in choices:
        assert choice in result.err, choice
    assert not store.exists()


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "just text", "\tname: x", "name: x\nname2: *unknown\n"])
def test_a_yaml_that_is_none(tmp_path: Path, store: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    for arguments in (["status", file], ["retrain", file], ["ingest", file, tmp_path]):
        result = call(*arguments, "--store", store, "--json")
        assert result.status == 2
        assert str(file) in result.told()


def test_a_key_that_stands_twice_is_none_that_wins(tmp_path: Path, store: Path) -> None:
    file = pipeline(tmp_path, gate=[GATE])
    file.write_text(file.read_text() + "gate:\n  - {rule: at_least, metric: accuracy, value: 0.0}\n")
    result = call("status", file, "--store", store, "--json")
    assert result.status == 2 and "the key gate stands twice (lines 7 and 13)" in str(result.error["message"])


def test_wrong_contracts(tmp_path: Path, store: Path) -> None:
    good(tmp_path / "fine", CLASSES, 2)
    file = pipeline(tmp_path / "p", contract="mine.yaml")
    cases = {
        "expectation: []": "expectation",
        "expectations:\n  - type: expect_nothing\n": "expectations.0.type",
        "expectations:\n  - type: expect_column_values_to_not_be_null\n    kwargs: {column: colour}\n": "colour",
        "expectations:\n  - type: expect_column_max_to_be_between\n    kwargs: {column: width, min: 1}\n": "min",
        "[": "mine.yaml",
    }
    assert call("ingest", file, tmp_path / "fine", "--store", store, "--json").status == 2  # no such contract
    for text, named in cases.items():
        (tmp_path / "p" / "mine.yaml").write_text(text)
        result = call("ingest", file, tmp_path / "fine", "--store", store, "--json")
        assert result.status == 2, text
        assert named in result.told()
    assert not (store / "snapshots").exists()
    # An expectation that fails refuses the batch, and says which.
    (tmp_path / "p" / "mine.yaml").write_text(
        "expectations:\n  - type: expect_column_values_to_be_between\n    kwargs: {column: width, min_value: 100}\n"
    )
    document, result = ingest(file, tmp_path / "fine", "--batch", "narrow", "--store", store)
    assert (result.status, document["outcome"], document["accepted"]) == (3, "refused", 0)
    assert "expect_column_values_to_be_between" in document["sentence"]
    assert rows(store, "select success from validations where batch = 'narrow'") == [{"success": False}]


def test_wrong_usage_is_status_2(tmp_path: Path, store: Path, strict: Path) -> None:
    for arguments in (
        ["status"],
        ["status", "nosuch"],
        ["status", "No Such"],
        ["status", strict, "--colour"],
        ["frobnicate"],
        ["rollback", strict],
        ["promote", strict, "--version", "abc"],
        ["query", "select 1", "--format", "xml"],
    ):
        assert call(*arguments, "--store", store, "--json").status == 2, arguments
        assert call(*arguments, "--store", store).status == 2, arguments
