"""`retrain` after a change of the configuration: another input, another holdout, a model of the user's own."""

from __future__ import annotations

import pytest

from leptonflow.core import pipeline_files
from leptonflow.runs import planning
from leptonflow.storage.address import open_store
from tests.e2e.commands.places import EACH, Place, retrained
from tests.e2e.helpers import call, listing, rows


@pytest.mark.slow
def test_another_input_encodes_the_examples_again_and_still_weighs_the_champion(copy: Place) -> None:
    copy.configure(input=[10, 10, 1])
    document = retrained(copy("retrain"), 0)
    assert document["verdict"] == "promoted"
    assert document["snapshot"] != copy.told["A"]["snapshot"]
    assert document["examples"] == copy.told["A"]["examples"]
    against = next(rule for rule in document["gate"] if rule["rule"] == "against_champion")
    assert against["passed"] is True
    # The champion's package is scored on the same images through its own preprocessing: the same as before.
    difference = document["holdout"]["accuracy"] - copy.told["A"]["holdout"]["accuracy"]
    assert against["value"] == pytest.approx(difference)
    kinds = rows(copy.store, "select kind, examples, why from snapshots order by number")
    assert [row["kind"] for row in kinds] == ["batch", "preprocessing"]
    assert kinds[1]["examples"] == 3 * EACH and "10" in kinds[1]["why"]


def test_a_landed_file_that_changed_stops_a_new_preprocessing(copy: Place) -> None:
    file = next((copy.store / "landing/small/monday/1").glob("*.png"))
    file.write_bytes(file.read_bytes() + b" ")
    assert file.name in call("doctor", "--store", copy.store).told()
    assert retrained(copy("retrain"), 0)["verdict"] == "unchanged"  # later changes are never read
    copy.configure(input=[10, 10, 1])
    result = copy("retrain")
    assert result.status == 1
    assert f"landing/small/monday/1/{file.name}" in str(result.error["received"])
    assert "back" in str(result.error["hint"])
    assert len(rows(copy.store, "select * from snapshots")) == 1


def test_another_holdout_is_status_2(copy: Place) -> None:
    copy.configure(holdout={"fraction": 0.3})
    result = copy("retrain")
    assert result.status == 2
    assert "holdout.fraction" in str(result.error["message"]) and "0.25" in str(result.error["expected"])
    assert copy("status").status == 0  # looking is not stopped


MODEL = """
import keras


def build(input_shape, classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(WIDTH, activation="relu"),
        keras.layers.Dense(len(classes), activation="softmax"),
    ])
"""


@pytest.mark.slow
def test_a_model_of_the_users_own(copy: Place) -> None:
    (copy.folder / "p" / "mine.py").write_text("from widths import WIDTH\n" + MODEL)
    (copy.folder / "p" / "widths.py").write_text("WIDTH = 16\n")
    copy.configure(model={"function": "mine:build"})
    document = retrained(copy("retrain"), 0)
    assert document["verdict"] == "promoted" and document["version"] != copy.told["A"]["version"]
    assert retrained(copy("retrain"), 0)["verdict"] == "unchanged"
    # A change of the module, or of one beside it, is another version: not trained yet.
    (copy.folder / "p" / "widths.py").write_text("WIDTH = 17\n")
    plan = planning.plan(open_store(copy.store.as_uri()), pipeline_files.load_config(str(copy.yaml)))
    assert not plan.finished and not plan.trained and plan.version != document["version"]
    assert not list((copy.folder / "p").rglob("*.pyc"))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def build(input_shape, classes):\n    raise ValueError('no such thing')\n", "no such thing"),
        ("def other(input_shape, classes):\n    return 1\n", "other"),
        ("def build(input_shape, classes):\n    return 1\n", "int"),
        ("import nothing_of_that_name\n", "nothing_of_that_name"),
        ("def build(:\n", "SyntaxError"),
        (
            "import keras\ndef build(s, c):\n    i = keras.Input(s)\n    x = keras.layers.Lambda(lambda t: t / 9)(i)\n"
            "    x = keras.layers.Flatten()(x)\n"
            "    return keras.Model(i, keras.layers.Dense(len(c), activation='softmax')(x))\n",
            "safe_mode",
        ),
    ],
)
def test_a_model_function_that_is_none_is_status_2_before_any_training(copy: Place, code: str, told: str) -> None:
    (copy.folder / "p" / "mine.py").write_text(code)
    copy.configure(model={"function": "mine:build"})
    fits = listing(copy.store / "fits")
    result = copy("retrain")
    assert result.status == 2, result.told()
    assert told in result.told() or told == "safe_mode"
    assert listing(copy.store / "fits") == fits
