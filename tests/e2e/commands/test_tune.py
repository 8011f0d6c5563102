"""`tune` from outside: a YAML to review, which the ordinary `retrain` trains; its folds are there already."""

from __future__ import annotations

import pytest

from leptonflow.core import pipeline_files
from tests.e2e.commands.places import KEYS, Place, retrained
from tests.e2e.helpers import call


def test_without_a_section_tune_it_is_status_2(copy: Place) -> None:
    result = copy("tune", "--trials", 2)
    assert result.status == 2 and "does not say what to tune" in str(result.error["message"])


@pytest.mark.slow  # tests/unit/test_tuning.py is quick
def test_the_best_becomes_a_yaml_that_passes_the_same_gate(copy: Place) -> None:
    training = {**KEYS["training"], "epochs": 3, "learning_rate": 1e-6}
    copy.configure(training=training, tune={"learning_rate": [0.003, 0.01, "log"], "batch_size": {"choices": [8, 16]}})
    document = copy("tune", "--trials", 3).document
    target = copy.yaml.with_name("small.tuned.yaml")
    assert document["yaml"] == str(target) and document["best"]["number"] > 1
    assert document["best"]["value"] > document["default"]
    assert pipeline_files.load_config(str(target)).training.learning_rate == document["best"]["parameters"]["learning_rate"]  # fmt: skip # noqa: E501
    assert [line for line in document["difference"] if "learning_rate" in line]
    again = copy("tune", "--trials", 3).document
    assert again == document, "done, and the same file"
    shown = call("tune", copy.yaml, "--trials", 3, "--store", copy.store)
    assert "has 3 trials already: nothing is trained" in shown.err and "goes on" not in shown.err
    assert f"{target} is written already: look at it" in shown.out and "wrote" not in shown.out
    target.write_text("# my own notes\n")
    kept = copy("tune", "--trials", 3).document
    assert kept["yaml"] is None and target.read_text() == "# my own notes\n"
    target.unlink()
    copy("tune", "--trials", 3)
    target.rename(copy.yaml)
    run = retrained(copy("retrain"), 0)
    assert run["version"] == document["best"]["version"] and run["verdict"] == "promoted"
    assert run["cv"]["accuracy"]["mean"] == pytest.approx(document["best"]["value"])
    rows = call("query", "FROM trials", "--store", copy.store, "--format", "json").document
    assert [row["trial"] for row in rows] == [1, 2, 3]
    assert call("verify", "--all", "--store", copy.store, "--json").document["damaged"] == []
