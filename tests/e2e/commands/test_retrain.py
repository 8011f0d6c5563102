"""`retrain`: what it promotes, refuses, rejects and leaves unchanged, and what it says each time."""

from __future__ import annotations

import os
import re
import resource
import shutil
from pathlib import Path

import pytest

from tests.e2e.commands.places import ALWAYS, EACH, HEAVY, KEYS, Place, retrained
from tests.e2e.helpers import call, command, good, ingest, listing, rows, together


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


def test_what_ran_before_another_configuration_is_unchanged_and_says_why(third: Place) -> None:
    before = listing(third.store)
    result = third("retrain")
    document = retrained(result, 0)
    assert document["verdict"] == "unchanged"
    assert document["version"] == third.told["B"]["version"]
    assert document["champion"] == third.told["C"]["version"]
    assert "promote" in result.err and third.told["B"]["version"] in result.err
    assert listing(third.store) == before


@pytest.mark.slow
def test_a_forced_run_with_the_same_predictions_leaves_the_champion(copy: Place) -> None:
    document = retrained(copy("retrain", "--force"), 4)
    assert document["champion"] == copy.told["A"]["version"] != document["version"]
    assert [rule["rule"] for rule in document["gate"] if rule["passed"] is False] == ["same-predictions"]
    assert "on every holdout example" in document["sentence"]
    assert len(copy.history()) == 1


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


def test_a_rule_on_a_fact_that_no_example_has_is_a_configuration_error(copy: Place) -> None:
    before = listing(copy.store)
    copy.configure(gate=[{"rule": "slices", "by": ["class", "colour"]}])
    result = copy("retrain")
    assert result.status == 2
    assert "gate.0.by" in result.told() and "brightness" in result.told()
    assert listing(copy.store) == before


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


@pytest.mark.slow
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
    assert rows(copy.store, "select count(*) as n from verdicts") == [{"n": 8 + 5}]


@pytest.mark.slow
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
    document, told = ingest(place.yaml, tmp_path / "data", "--batch", "data", "--store", place.store)
    assert document["accepted"] == 48 and "48 of 48 images are smaller than the input" in told.err
    shown = call("retrain", place.yaml, "--store", place.store)
    assert shown.status == 0, shown.told()
    (place_told,) = shown.err.splitlines()  # nothing that ingest has told the same person
    assert "promoted" in shown.out
    assert place_told.startswith("leptonflow: 48 examples of 14 x 14 x 1 (9.4 kB) are kept in memory")
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
