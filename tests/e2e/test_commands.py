"""Every command from outside, on one small pipeline of handwritten digits.

What trains is in three module fixtures; a test that changes something takes a copy of the store, which
is itself a promise: a store that was copied works. The folder's Prefect server stays up meanwhile.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows import server
from leptonflow import planning
from leptonflow.store import open_store
from schemas.errors import LeptonflowError
from tests.e2e.helpers import Result, call, command, digits, good, ingest, listing, pipeline, rows, start, together

EACH = 45
KEYS: dict[str, Any] = {
    "input": [14, 14, 1],
    "model": {"filters": [8], "dense": 16},
    "training": {"epochs": 2, "batch_size": 8, "folds": 2, "learning_rate": 0.005},
    "holdout": {"fraction": 0.25},
    "gate": [
        {"rule": "at_least", "metric": "accuracy", "value": 0.5},
        {"rule": "at_most", "metric": "log_loss", "on": "holdout", "value": 5.0},
        {"rule": "fold_spread", "metric": "accuracy", "value": 0.7},
        {"rule": "against_champion", "metric": "accuracy", "margin": 1.0},
    ],
}
RETRAIN = {
    "run_id", "verdict", "version", "champion", "snapshot", "batches", "examples", "cv", "holdout", "gate", "report",
    "seconds",
}  # fmt: skip
ALWAYS = {"infra_validate", "stale-snapshot", "rolled-back"}  # in every verdict, never in a YAML
HEAVY = {"tensorflow", "keras", "great_expectations", "prefect", "duckdb", "sklearn", "pandas"}


@dataclass(frozen=True)
class Place:
    """A folder with a pipeline, its data and its store; `told` are the answers that led here."""

    folder: Path
    told: dict[str, Any]

    @property
    def yaml(self) -> Path:
        return self.folder / "p" / "small.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def __call__(self, name: str, *arguments: object) -> Result:
        """A command on this pipeline and store, with --json."""
        return call(name, self.yaml, *arguments, "--store", self.store, "--json")

    def configure(self, **keys: Any) -> None:
        pipeline(self.folder / "p", **{**KEYS, **keys})

    def history(self) -> list[dict[str, Any]]:
        return list(self("history").document)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of all commands here, and its Prefect server, held until the module ends."""
    folder, before = tmp_path_factory.mktemp("work"), Path.cwd()
    names = ("LEPTONFLOW_STORE", "PREFECT_API_URL")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.chdir(folder)
    held = server.start((folder / server.FOLDER).absolute())
    try:
        yield folder
    finally:
        held.close()
        os.chdir(before)
        os.environ.update(kept)


@pytest.fixture(scope="module")
def first(work: Path) -> Place:
    """One batch, one run: the champion A."""
    place = Place(work / "first", {})
    place.configure()
    digits(place.folder / "monday", 3, EACH)
    (place.folder / "monday" / "0" / "broken.png").write_bytes(b"")
    document, _ = ingest(place.yaml, place.folder / "monday", "--batch", "monday", "--store", place.store)
    place.told["ingest"] = document
    place.told["A"] = retrained(place("retrain"), 0)
    return place


@pytest.fixture(scope="module")
def third(first: Place, work: Path) -> Place:
    """A, then new data (B), then another attempt (C): three champions in a row."""
    place = moved(first, work / "third")
    landing = place.store / "landing" / "small"
    digits(landing / "tuesday", 3, 12, skip=EACH)
    (landing / "rubbish" / "1").mkdir(parents=True)
    for number in range(3):
        (landing / "rubbish" / "1" / f"{number}.png").write_text(f"rubbish {number}")
    for batch in ("tuesday", "rubbish"):
        (landing / batch / "_READY").touch()
    assert place("status").document["waiting"] == ["rubbish", "tuesday"]
    place.told["B"] = retrained(place("retrain"), 0)
    place.told["C"] = retrained(place("retrain", "--force"), 0)
    return place


def moved(place: Place, folder: Path) -> Place:
    """A copy of the place under another path."""
    folder.mkdir()
    for name in ("p", "store"):
        shutil.copytree(place.folder / name, folder / name)
    return Place(folder, dict(place.told))


@pytest.fixture
def copy(first: Place, tmp_path: Path) -> Place:
    return moved(first, tmp_path / "copy")


@pytest.fixture
def champions(third: Place, tmp_path: Path) -> Place:
    return moved(third, tmp_path / "copy")


def retrained(result: Result, status: int) -> dict[str, Any]:
    assert result.status == status, result.told()
    assert set(result.document) >= RETRAIN
    return dict(result.document)


# --- retrain -----------------------------------------------------------------------------------------


def test_the_first_run_promotes_and_tells_every_number(first: Place) -> None:
    landed, run = first.told["ingest"], first.told["A"]
    assert (landed["accepted"], landed["quarantined"]) == (3 * EACH, 1)
    assert run["verdict"] == "promoted"
    assert run["champion"] == run["version"]
    assert re.fullmatch("[0-9a-f]{12}", run["version"]) and re.fullmatch("[0-9a-f]{12}", run["run_id"])
    assert run["snapshot"] == landed["snapshot"]
    assert run["batches"] == []  # `ingest` had committed it: this run found none
    assert run["examples"]["train"] + run["examples"]["holdout"] == 3 * EACH
    assert set(run["cv"]) >= {"accuracy", "precision", "recall", "f1", "log_loss", "recall[0]"}
    for result in run["cv"].values():
        assert set(result) == {"mean", "std", "folds"} and len(result["folds"]) == 2
        assert result["mean"] == pytest.approx(sum(result["folds"]) / 2)
        assert result["std"] == pytest.approx(abs(result["folds"][0] - result["folds"][1]) / 2**0.5)  # ddof 1
    assert set(run["holdout"]) >= {"accuracy", "log_loss", "f1[2]"}
    rules = {rule["rule"]: rule for rule in run["gate"]}
    assert set(rules) == {*ALWAYS, "at_least", "at_most", "fold_spread", "against_champion"}
    for rule in run["gate"]:
        assert set(rule) >= {"rule", "value", "bound", "passed", "sentence"}
    assert rules["against_champion"]["passed"] is None
    assert rules["at_least"]["value"] == pytest.approx(run["cv"]["accuracy"]["mean"])
    assert rules["infra_validate"]["passed"] is True
    assert run["seconds"] and all(isinstance(s, float) for s in run["seconds"].values())
    assert Path(run["report"]).is_file()


def test_nothing_new_is_unchanged_and_costs_nothing(first: Place, tmp_path: Path) -> None:
    """No object written, no heavy import, no server; the earlier run's numbers again."""
    before = listing(first.store)
    dump = "import atexit; atexit.register(lambda: open('modules', 'w').write(' '.join(sys.modules)))"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = command(
        "retrain", first.yaml, "--store", first.store, "--json", cwd=tmp_path, prelude=dump
    )  # fmt: skip
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    document = retrained(result, 0)
    assert document["verdict"] == "unchanged"
    assert {**document, "verdict": "promoted"} == first.told["A"]
    assert result.err == ""
    assert listing(first.store) == before
    assert not HEAVY & set((tmp_path / "modules").read_text().split())
    assert not (tmp_path / ".leptonflow").exists()
    # Seconds of a processor, for the clock is also that of whatever else this machine does.
    assert spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime < 2
    shown = call("retrain", first.yaml, "--store", first.store)
    assert shown.status == 0 and "unchanged" in shown.out and first.told["A"]["version"] in shown.out


def test_the_name_store_and_folder_of_a_pipeline_are_in_no_digest(first: Place, copy: Place) -> None:
    text = copy.yaml.read_text()
    copy.yaml.write_text(f"# a comment\n{text}debounce: 30\nschedule: {{cron: '0 3 * * 1'}}\n")
    assert retrained(copy("retrain"), 0)["verdict"] == "unchanged"


def test_new_data_trains_again_and_a_refused_batch_is_listed(third: Place) -> None:
    a, b, c = (third.told[name] for name in "ABC")
    assert b["verdict"] == "promoted"
    assert sorted(b["batches"]) == ["rubbish", "tuesday"]
    assert b["examples"]["train"] + b["examples"]["holdout"] == 3 * (EACH + 12)
    assert b["snapshot"] != a["snapshot"] == first_snapshot(third)
    against = next(rule for rule in b["gate"] if rule["rule"] == "against_champion")
    assert against["passed"] is True and a["version"] in against["sentence"]
    outcomes = rows(third.store, "select batch, outcome, accepted, quarantined from batches order by batch")
    assert [(r["batch"], r["outcome"], r["accepted"], r["quarantined"]) for r in outcomes] == [
        ("monday", "accepted", 3 * EACH, 1),
        ("rubbish", "refused", 0, 3),
        ("tuesday", "accepted", 36, 0),
    ]
    # --force: a new attempt on the same data is another version and another run.
    assert c["snapshot"] == b["snapshot"]
    assert len({a["version"], b["version"], c["version"]}) == len({a["run_id"], b["run_id"], c["run_id"]}) == 3
    assert c["verdict"] == "promoted" and c["champion"] == c["version"]
    assert [(r["number"], r["version"], r["previous"], r["kind"]) for r in third.history()] == [
        (1, a["version"], None, "promotion"),
        (2, b["version"], a["version"], "promotion"),
        (3, c["version"], b["version"], "promotion"),
    ]


def first_snapshot(place: Place) -> str:
    return str(rows(place.store, "select snapshot from snapshots where number = 1")[0]["snapshot"])


def test_after_a_forced_run_the_plain_one_is_unchanged_and_says_why(third: Place) -> None:
    before = listing(third.store)
    result = third("retrain")
    document = retrained(result, 0)
    assert document["verdict"] == "unchanged"
    assert document["version"] == third.told["B"]["version"]
    assert document["champion"] == third.told["C"]["version"]
    assert "promote" in result.err and third.told["B"]["version"] in result.err
    assert listing(third.store) == before


def test_a_gate_that_refuses_is_status_4_and_the_champion_stays(copy: Place) -> None:
    copy.configure(gate=[{"rule": "at_least", "metric": "accuracy", "value": 2.0}])
    models = listing(copy.store / "models")
    document = retrained(copy("retrain"), 4)
    assert document["verdict"] == "refused"
    assert document["champion"] == document["version"] == copy.told["A"]["version"]  # only the gate is new
    assert document["run_id"] != copy.told["A"]["run_id"]
    rules = {rule["rule"]: rule["passed"] for rule in document["gate"]}
    assert rules.pop("at_least") is False
    assert set(rules) == ALWAYS and rules["infra_validate"] is True
    now = listing(copy.store / "models")
    assert {k: v for k, v in now.items() if k in models} == models and not [k for k in now if k.endswith(".keras")][1:]
    assert len(copy.history()) == 1
    assert [run["verdict"] for run in copy("runs").document] == ["promoted", "refused"]
    assert copy("retrain").document["verdict"] == "unchanged"
    assert call("retrain", copy.yaml, "--store", copy.store).status == 0


def test_against_champion_alone_refuses_the_first_candidate(copy: Place) -> None:
    shutil.rmtree(copy.store / "promotions")
    copy.configure(gate=[{"rule": "against_champion", "metric": "accuracy"}])
    document = retrained(copy("retrain"), 4)
    assert document["champion"] is None
    sentence = " ".join([document["sentence"], *(rule["sentence"] for rule in document["gate"])])
    assert "at_least" in sentence and "promote" in sentence


def test_a_gate_on_a_class_that_is_not_there(copy: Place) -> None:
    copy.configure(gate=[{"rule": "at_least", "metric": "recall[cat]", "value": 0.1}])
    result = copy("retrain")
    assert result.status == 2
    assert "recall[cat]" in result.told() and "0, 1, 2" in result.told()


def test_too_few_of_a_class_is_rejected_each_time_and_never_a_run(work: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    place.configure(training={**KEYS["training"], "folds": 20})
    good(tmp_path / "few", ["cat", "dog"], 12)
    ingest(place.yaml, tmp_path / "few", "--batch", "few", "--store", place.store)
    for _ in range(2):
        document = retrained(place("retrain"), 3)
        assert document["verdict"] == "rejected-data"
        assert document["champion"] is None and document["version"] is None and document["run_id"] is None
        assert document["examples"]["train"] + document["examples"]["holdout"] == 24
        assert "20 folds" in document["sentence"] and "cat: " in document["sentence"]
    assert place("runs").document == []
    assert "20 folds" in call("retrain", place.yaml, "--store", place.store).out


def test_a_refused_batch_alone_is_rejected_data_once(copy: Place) -> None:
    rubbish = copy.store / "landing/small/rubbish"
    (rubbish / "0").mkdir(parents=True)
    (rubbish / "0" / "x.png").write_text("rubbish")
    (rubbish / "_READY").touch()
    document = retrained(copy("retrain"), 3)
    assert (document["verdict"], document["batches"]) == ("rejected-data", ["rubbish"])
    assert document["champion"] == copy.told["A"]["version"]
    assert "rubbish" in document["sentence"]
    assert retrained(copy("retrain"), 0)["verdict"] == "unchanged"


def test_a_refused_batch_on_an_empty_store(work: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    place.configure()
    nothing = retrained(place("retrain"), 3)
    assert nothing["verdict"] == "rejected-data" and "ingest" in nothing["sentence"]
    rubbish = place.store / "landing/small/rubbish"
    (rubbish / "0").mkdir(parents=True)
    (rubbish / "0" / "x.png").write_text("rubbish")
    (rubbish / "_READY").touch()
    document = retrained(place("retrain"), 3)
    assert (document["verdict"], document["snapshot"], document["champion"]) == ("rejected-data", None, None)


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


def test_a_model_of_the_users_own(copy: Place) -> None:
    (copy.folder / "p" / "mine.py").write_text("from widths import WIDTH\n" + MODEL)
    (copy.folder / "p" / "widths.py").write_text("WIDTH = 16\n")
    copy.configure(model={"function": "mine:build"})
    document = retrained(copy("retrain"), 0)
    assert document["verdict"] == "promoted" and document["version"] != copy.told["A"]["version"]
    assert retrained(copy("retrain"), 0)["verdict"] == "unchanged"
    # A change of the module, or of one beside it, is another version: not trained yet.
    (copy.folder / "p" / "widths.py").write_text("WIDTH = 17\n")
    plan = planning.plan(open_store(copy.store.as_uri()), planning.load_config(str(copy.yaml)))
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


def test_two_at_once_on_one_folder(copy: Place, work: Path) -> None:
    """The second waits, says so, and finds nothing left to do."""
    copy.configure(gate=[{"rule": "at_least", "metric": "accuracy", "value": 0.4}])
    results = together(work, [["retrain", copy.yaml, "--store", copy.store, "--json"]] * 2)
    verdicts = {result.document["verdict"]: result for result in results}
    assert set(verdicts) == {"promoted", "unchanged"}, [r.told() for r in results]
    same = "reused: same data, same config, same code"  # the gate alone is new
    told = [f"leptonflow: {what} {same}" for what in ("fold 1", "fold 2", "final fit")]
    assert verdicts["promoted"].err.splitlines() == told  # no library's words, nothing of a server
    (line,) = verdicts["unchanged"].err.splitlines()
    assert "waiting" in line
    assert len(copy("runs").document) == 2 and len(copy.history()) == 1  # the champion itself: no new record
    assert rows(copy.store, "select count(*) as n from verdicts") == [{"n": 7 + 4}]


def test_hostile_class_names_go_all_the_way(work: Path, tmp_path: Path) -> None:
    """From a folder's name to the end table, the report, a query and a prediction."""
    place = Place(tmp_path, {})
    place.configure(training={**KEYS["training"], "epochs": 1}, gate=[{"rule": "at_least", "metric": "f1", "value": 0}])
    names = [b"$x^2$ [bold]", b"<script>alert(1)<|script>", b"new\nline \xff", "\u00fcn\u00ef".encode()]
    for number, name in enumerate(names):
        folder = os.path.join(os.fsencode(tmp_path), b"data", name)
        good(tmp_path / "plain", ["x"], 12, first=100 * number)
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.rename(tmp_path / "plain" / "x", folder)
    document, _ = ingest(place.yaml, tmp_path / "data", "--batch", "data", "--store", place.store)
    assert document["accepted"] == 48
    shown = call("retrain", place.yaml, "--store", place.store)
    assert shown.status == 0, shown.told()
    assert "promoted" in shown.out and shown.err == ""
    run = place("runs").document[0]
    assert f"recall[{names[0].decode()}]" in run["holdout"] and "recall[new\nline \\xff]" in run["holdout"]
    assert "<script" not in Path(run["report"]).read_text(encoding="utf-8")
    labels = {row["label"] for row in rows(place.store, "select distinct label from predictions")}
    assert labels == {name.decode("utf-8", "backslashreplace") for name in names}
    image = next(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"data", names[2]))).iterdir())
    answer = place("predict", image)
    assert answer.status == 0 and answer.document[0]["label"] in labels
    for arguments in (["predict", place.yaml, image], ["status", place.yaml], ["runs", place.yaml]):
        assert call(*arguments, "--store", place.store).status == 0
    assert call("query", "from predictions", "--store", place.store, "--format", "csv").status == 0
    assert call("query", "from predictions", "--store", place.store).status == 0


# --- promote, rollback, history ----------------------------------------------------------------------


def test_rollback_goes_from_c_over_b_to_a_and_no_further(champions: Place) -> None:
    a, b, c = (champions.told[name]["version"] for name in "ABC")
    for version, before in ((b, c), (a, b)):
        result = champions("rollback", "--reason", "worse in the field")
        assert result.status == 0, result.told()
        assert result.document["champion"] == version
        record = result.document["record"]
        assert (record["kind"], record["previous"], record["reason"]) == ("rollback", before, "worse in the field")
        assert record["who"]
    assert champions("status").document["champion"] == a
    result = champions("rollback", "--reason", "once more")
    assert result.status == 1
    assert len(champions.history()) == 5
    # A run after a rollback does not undo it, and nothing is new.
    again = retrained(champions("retrain"), 0)
    assert (again["verdict"], again["champion"]) == ("unchanged", a)
    # By name, forwards too; and what a person rolled back comes again only by `promote`.
    result = champions("rollback", "--to", c, "--reason", "was better")
    assert result.status == 0 and result.document["champion"] == c
    assert champions("rollback", "--to", "abcdefabcdef", "--reason", "x").status == 1
    assert champions("rollback", "--to", c, "--reason", "x").status == 1
    assert champions("rollback", "--to", b, "--reason", " ").status == 2
    assert len(champions.history()) == 6


def test_what_a_person_rolled_back_is_promoted_again_only_by_promote(champions: Place) -> None:
    a, b = (champions.told[name]["version"] for name in "AB")
    for _ in range(2):
        assert champions("rollback", "--reason", "bad").status == 0
    champions.configure(gate=[{"rule": "at_least", "metric": "accuracy", "value": 0.1}])
    document = retrained(champions("retrain"), 4)  # another gate over the same data: B is weighed again
    assert (document["version"], document["verdict"], document["champion"]) == (b, "refused", a)
    failed = [rule for rule in document["gate"] if rule["passed"] is False]
    assert [rule["rule"] for rule in failed] == ["rolled-back"]
    result = champions("promote", "--version", b, "--reason", "it was the camera")
    assert result.status == 0
    assert (result.document["champion"], result.document["record"]["kind"]) == (b, "override")


def test_rollback_without_an_earlier_champion(copy: Place) -> None:
    before = listing(copy.store)
    result = copy("rollback", "--reason", "x")
    assert result.status == 1
    assert copy.told["A"]["version"] in result.told()
    assert listing(copy.store) == before


def test_rollback_without_any_champion(copy: Place) -> None:
    shutil.rmtree(copy.store / "promotions")
    assert copy("rollback", "--reason", "x").status == 1
    assert copy("status").document["champion"] is None


def test_promote(champions: Place) -> None:
    a, c = (champions.told[name]["version"] for name in "AC")
    before = listing(champions.store)
    result = champions("promote", "--version", c, "--reason", "it is that already")
    assert (result.status, result.document) == (0, {"champion": c, "record": None})
    assert listing(champions.store) == before
    result = champions("promote", "--version", "0123456789ab", "--reason", "x")
    assert result.status == 1 and a in str(result.error["expected"])
    assert champions("promote", "--version", "../A", "--reason", "x").status == 2
    assert champions("promote", "--version", a, "--reason", "").status == 2
    result = champions("promote", "--version", a, "--reason", "an audit asked for it")
    assert result.status == 0
    assert result.document["record"] == champions.history()[-1]
    assert {"number", "version", "previous", "run_id", "kind", "who", "reason", "at"} == set(champions.history()[-1])
    assert rows(champions.store, "select kind, reason from promotions where number = 4") == [
        {"kind": "override", "reason": "an audit asked for it"}
    ]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.keras", "preprocessing.json", "labels.json", "config.json", "manifest.json"])
def test_a_damaged_package_is_named_and_never_champion(champions: Place, name: str, first: Place) -> None:
    a, b, c = (champions.told[name]["version"] for name in "ABC")
    before = champions.history()
    flip(champions.store / "models/small" / b / name)
    for arguments in (["promote", "--version", b], ["rollback"], ["rollback", "--to", b]):
        result = champions(*arguments, "--reason", "x")
        assert result.status == 1, result.told()
        assert f"{b}/{name}" in result.told()
        if arguments[0] == "rollback":
            assert a in str(result.error["hint"])  # the newest whole one
    assert champions.history() == before
    flip(champions.store / "models/small" / c / name)
    image = next((first.folder / "monday" / "0").glob("digit*"))
    result = champions("predict", image)
    assert result.status == 1
    assert f"{c}/{name}" in result.told()


def test_a_damaged_log_is_named_and_makes_nobody_champion(champions: Place) -> None:
    record = champions.store / "promotions/small/log/00000002.json"
    whole = record.read_bytes()
    for data in (b"garbage", whole.replace(b"promotion", b"promotioN", 1), None):
        record.write_bytes(data) if data is not None else record.unlink()
        for arguments in (["status"], ["history"], ["rollback", "--reason", "x"], ["retrain"]):
            result = champions(*arguments)
            assert result.status == 1, (data, arguments, result.told())
            assert "promotions/small/log/0000000" in result.told()


# --- predict, report, query --------------------------------------------------------------------------


def test_predict(first: Place, tmp_path: Path) -> None:
    images = sorted((first.folder / "monday").glob("[0-2]/digit*"))[::9]
    (tmp_path / "bad.png").write_text("no picture")
    files = [*images, tmp_path / "bad.png", tmp_path / "gone.png", tmp_path]
    result = first("predict", *files)
    assert result.status == 1
    assert [answer["file"] for answer in result.document] == [str(f) for f in files]
    for answer in result.document:
        assert set(answer) == {"file", "label", "probability", "version", "error"}
        assert answer["version"] == first.told["A"]["version"]
    answered, failed = result.document[: len(images)], result.document[len(images) :]
    assert all(a["error"] is None and 1 / 3 <= a["probability"] <= 1 for a in answered)
    right = sum(Path(a["file"]).parent.name == a["label"] for a in answered)
    assert right / len(answered) > 0.5
    assert [f["label"] for f in failed] == [None] * 3
    assert "unreadable-image" in failed[0]["error"] and "No such file" in failed[1]["error"]
    assert first("predict", *images[:2]).status == 0
    shown = call("predict", first.yaml, *files, "--store", first.store)
    assert shown.status == 1 and "bad.png" in shown.err and images[0].name in shown.out
    # What is predicted is what the tables say of the same image.
    known = {
        (row["source"], row["predicted"]): row["probability"]
        for row in rows(
            first.store, "select example_id as source, predicted, probability from predictions where split = 'holdout'"
        )
    }
    assert known


def test_predict_without_a_champion(work: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    place.configure()
    (tmp_path / "x.png").write_bytes(b"x")
    result = place("predict", tmp_path / "x.png")
    assert result.status == 1 and "retrain" in str(result.error["hint"])


def test_the_report_is_one_file_that_asks_for_nothing(first: Place) -> None:
    result = call("report", first.told["A"]["run_id"], "--store", first.store, "--json")
    assert result.status == 0 and set(result.document) == {"path"}
    assert result.document["path"] == first.told["A"]["report"]
    text = Path(result.document["path"]).read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html>")
    outside = re.findall(r"""(?:src|href|action|data)\s*=\s*["']?(?!data:|#)[^"'\s>]+""", text)
    assert not outside
    assert not re.findall(r"url\((?!['\"]?(?:data:|#))|@import|<script|<iframe|<link", text)
    for part in (first.told["A"]["version"], "at_least", "fold_spread", "infra_validate", "promoted", "<img", "monday"):
        assert part in text, part
    assert call("report", "0123456789ab", "--store", first.store).status == 1
    assert call("report", "../../etc", "--store", first.store).status in (1, 2)


def test_query_in_four_formats(third: Place, tmp_path: Path) -> None:
    sql = "select fold, metric, value from folds where metric = 'accuracy' order by version, fold"
    objects = rows(third.store, sql)
    assert len(objects) == 6 and set(objects[0]) == {"fold", "metric", "value"}
    assert json.loads(call("query", sql, "--store", third.store, "--format", "json").out) == objects
    found = list(csv.DictReader(io.StringIO(call("query", sql, "--store", third.store, "--format", "csv").out)))
    assert [float(row["value"]) for row in found] == [row["value"] for row in objects]
    table = call("query", sql, "--store", third.store)
    assert table.out.count("accuracy") == 6 and "6 rows" in table.out
    file = tmp_path / "out.parquet"
    assert call("query", sql, "--store", third.store, "--format", "parquet", "--output", file).status == 0
    assert pq.read_table(file).to_pylist() == objects
    assert call("query", sql, "--store", third.store, "--format", "parquet").status == 2
    csv_file = tmp_path / "out.csv"
    assert call("query", sql, "--store", third.store, "--format", "csv", "--output", csv_file).out == ""
    assert csv_file.read_text().startswith("fold,metric,value")
    assert rows(third.store, "select 1 as a where false") == []
    times = rows(third.store, "select started_at from runs limit 1")[0]["started_at"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*(Z|\+00:00)$", times), times


@pytest.mark.parametrize(
    "sql",
    [
        "drop table runs",
        "insert into runs select * from runs",
        "copy runs to 'x.csv'",
        "copy (select 1) to '/tmp/leptonflow-e2e-never.csv'",
        "select 1; select 2",
        "",
        "attach '/tmp/x.db'",
        "install httpfs",
        "set threads = 1",
        "pragma database_list",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "from read_parquet('/etc/*')",
        "select * from glob('/*')",
        "select * from read_csv('http://127.0.0.1:9/x.csv')",
        "explain analyze create table x as select 1",
        "select getenv('HOME')",
        "selec 1",
        "select nothing from runs",
        "select * from nowhere",
    ],
)
def test_sql_that_does_more_than_read_the_tables(first: Place, sql: str) -> None:
    before = listing(first.store)
    result = call("query", sql, "--store", first.store, "--json")
    assert result.status == 2, result.told()
    assert "root:" not in result.told()
    assert listing(first.store) == before


COLUMNS = {
    "batches": "batch contract outcome arrived accepted quarantined known ignored snapshot at",
    "quarantine": "batch source rule reason",
    "runs": "run_id version verdict snapshot started_at finished_at seconds",
    "folds": "run_id version fold metric value",
    "epochs": "run_id version fold epoch metric value seconds",
    "predictions": "run_id version split fold example_id label predicted probability",
    "verdicts": "run_id version rule metric value bound passed sentence",
    "models": "version run_id manifest_sha256 bytes created_at",
    "promotions": "number version previous run_id kind who reason at",
    "validations": "batch contract",
    "snapshots": "snapshot",
}


def test_all_tables_join(third: Place) -> None:
    store = third.store
    for name, columns in COLUMNS.items():
        described = {row["column_name"] for row in rows(store, f"describe {name}")}
        assert described >= {"pipeline", *columns.split()}, name
        assert rows(store, f"select distinct pipeline from {name}") == [{"pipeline": "small"}], name

    def one(sql: str) -> Any:
        found = rows(store, f"select {sql}")
        assert len(found) == 1
        return next(iter(found[0].values()))

    runs = [third.told[name] for name in "ABC"]
    assert one("count(*) from runs") == one("count(distinct run_id) from runs") == 3
    assert one("count(*) from runs join verdicts using (pipeline, run_id, version)") == 3 * 7
    assert one("count(*) from runs join models using (pipeline, run_id, version)") == 3
    assert one("count(*) from models join promotions using (pipeline, version, run_id, manifest_sha256)") == 3
    metrics = len(runs[0]["cv"])
    assert one("count(*) from runs join folds using (pipeline, run_id, version)") == 3 * 2 * metrics
    assert one("count(distinct fold) from epochs") == 2
    fits = "select distinct version, fold, epoch from epochs join runs using (version)"
    assert one(f"count(*) from ({fits})") == 3 * 3 * 2
    for run in runs:
        of = f"from predictions where run_id = '{run['run_id']}' and version = '{run['version']}'"
        assert one(f"count(distinct example_id) {of} and split = 'oof'") == run["examples"]["train"]
        assert one(f"count(*) {of}") == sum(run["examples"].values())
        assert one(f"avg((label = predicted)::int) {of} and split = 'holdout'") == run["holdout"]["accuracy"]
        assert one(f"count(*) from (select example_id {of} group by 1 having count(distinct split) > 1)") == 0
        for fold, value in enumerate(run["cv"]["accuracy"]["folds"]):
            assert one(f"avg((label = predicted)::int) {of} and fold = {fold}") == pytest.approx(value)
            assert one(f"value from folds where run_id = '{run['run_id']}' and fold = {fold} and metric = 'accuracy'"
                       ) == value  # fmt: skip
    assert one("count(*) from batches join snapshots using (pipeline, batch, snapshot)") == 2
    assert one("count(*) from batches join quarantine using (pipeline, batch, contract)") == 1 + 3
    assert one("count(*) from quarantine") == one("sum(quarantined) from batches")
    assert one("count(*) from batches join validations using (pipeline, batch, contract)") == 2 * 8
    assert one("bool_and(arrived = accepted + quarantined + known) from batches") is True
    assert one("count(*) from runs r join snapshots s on r.snapshot = s.snapshot") == 3


# --- status, runs, models, init, doctor --------------------------------------------------------------


def test_status_runs_and_models(third: Place) -> None:
    status = third("status").document
    assert set(status) >= {"champion", "since", "metrics", "newest", "snapshot", "waiting", "last_run"}
    c = third.told["C"]
    assert (status["champion"], status["newest"], status["snapshot"]) == (c["version"], c["version"], c["snapshot"])
    assert status["metrics"] == c["holdout"]
    assert status["waiting"] == [] and status["last_run"]["run_id"] == c["run_id"]
    runs = third("runs").document
    assert [run["run_id"] for run in runs] == [third.told[name]["run_id"] for name in "ABC"]
    models = third("models").document
    assert [m["version"] for m in models] == [third.told[name]["version"] for name in "ABC"]
    for model in models:
        assert {"version", "run_id", "bytes", "created_at"} <= set(model)
    for name in ("status", "runs", "models", "history"):
        shown = call(name, third.yaml, "--store", third.store)
        assert shown.status == 0 and c["version"] in shown.out, name


def test_a_pipeline_without_anything_yet(work: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    place.configure()
    status = place("status").document
    assert set(status) >= {"champion", "since", "metrics", "newest", "snapshot", "waiting", "last_run"}
    assert {status[k] for k in ("champion", "since", "metrics", "newest", "snapshot", "last_run")} == {None}
    for name in ("runs", "models", "history"):
        assert place(name).document == []
        assert call(name, place.yaml, "--store", place.store).status == 0
    for table in COLUMNS:
        assert rows(place.store, f"select * from {table}") == []
    assert call("status", place.yaml, "--store", place.store).status == 0
    assert not place.store.exists()  # looking writes nothing


def test_init_writes_what_runs_as_it_is(work: Path, tmp_path: Path) -> None:
    good(tmp_path / "animals", ["no", "cat", "7"], 3)
    result = call("init", tmp_path / "zoo", "--from", tmp_path / "animals", "--json")
    assert result.status == 0 and set(result.document) == {"path"}
    path = Path(result.document["path"])
    assert path == tmp_path / "zoo" / "zoo.yaml" and (tmp_path / "zoo" / "zoo.contract.yaml").is_file()
    assert planning.load_config(str(path)).classes == ("7", "cat", "no")
    assert path.read_text().count("#") > 5
    document, _ = ingest(path, tmp_path / "animals", "--store", tmp_path / "store")
    assert document["accepted"] == 9
    again = call("init", tmp_path / "zoo", "--json")
    assert again.status == 2 and str(path) in again.told()
    assert call("init", tmp_path / "bare", "--json").status == 0
    assert planning.load_config(str(tmp_path / "bare" / "bare.yaml")).classes is None
    assert call("init", tmp_path / "x", "--from", tmp_path / "not-there").status == 2
    assert not (tmp_path / "x").exists()


def test_doctor(first: Place, work: Path) -> None:
    result = call("doctor", "--store", first.store, "--json")
    assert result.status == 0, result.told()
    checks = {check["name"]: check for check in result.document["checks"]}
    assert {"python", "packages", "store", "prefect", "accelerator"} <= set(checks)
    assert all(set(check) == {"name", "ok", "detail"} and check["detail"] for check in checks.values())
    shown = call("doctor", "--store", first.store)
    assert len(shown.out.splitlines()) == len(checks)


def test_a_name_under_pipelines_and_the_stores_of_the_environment(
    first: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").mkdir()
    shutil.copy(first.yaml, tmp_path / "pipelines" / "small.yaml")
    monkeypatch.setenv("LEPTONFLOW_STORE", str(first.store))
    assert call("status", "small", "--json").document["champion"] == first.told["A"]["version"]
    other = call("status", "large", "--json")
    assert other.status == 2 and "small" in str(other.error["expected"])
    monkeypatch.delenv("LEPTONFLOW_STORE")
    assert call("status", "small", "--json").document["champion"] is None
    assert call("ingest", "small", first.folder / "monday", "--batch", "m", "--json").status == 0
    assert (tmp_path / ".leptonflow" / "store.json").is_file()
    assert call("status", "small", "--json").document["batches"] == ["m"]
    with pytest.raises(LeptonflowError):  # a traceback where one was asked for
        call("status", "large", "--debug")


def test_help_is_light_and_names_no_command_that_does_not_work(tmp_path: Path) -> None:
    dump = "import atexit; atexit.register(lambda: open('modules', 'w').write(' '.join(sys.modules)))"
    process = start("--help", cwd=tmp_path, prelude=dump)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == ""
    here = re.findall(r"^  ([a-z]+)  ", out, re.MULTILINE)
    assert here == [
        "init", "ingest", "retrain", "status", "runs", "models", "history", "promote", "rollback", "predict", "query",
        "report", "doctor",
    ]  # fmt: skip
    assert not (HEAVY | {"pyarrow", "numpy"}) & set((tmp_path / "modules").read_text().split())
