"""A pipeline's own curve: its rule, its holdout, its runs' discordance; and the command that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from cli.main import main
from leptonflow.core.hashing import canonical, sha256
from leptonflow.data.dataset import dataset_state
from leptonflow.gate import simulation
from leptonflow.notebook import champion
from leptonflow.registry import champion_log
from leptonflow.runs import champion_metrics, operating_curve, pipeline_status, recording
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from leptonflow.workloads import predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas.config import AgainstChampion, Pipeline
from schemas.errors import ConfigurationError, Damaged, LeptonflowError, UsageError
from schemas.records import ObjectRef
from tests import fit_examples
from tests.run_examples import make

CHAMPION = "0123456789ab"
GATE = [{"rule": "against_champion", "metric": "accuracy", "margin": 0.01}]
CONFIG = Pipeline.model_validate(
    {"name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": GATE}
)


@pytest.fixture
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def compared(store: Store, run_id: str, discordant: int, version: str = "a1" * 6, champion: str = CHAMPION) -> None:
    """A finished run whose candidate and champion differ in being right on `discordant` of 400 examples."""
    run = make(store, run_id=run_id, version=version, champion=champion, seed=int(run_id, 16) % 1000)
    classes = run.manifest.classes
    ids, labels, probabilities = predictions.read(ONE_CLASS, store.get(run.evaluation.predictions.key), classes)
    theirs = probabilities.copy()
    right = theirs.argmax(axis=1) == labels
    for row in range(discordant):  # right becomes wrong, wrong becomes right
        theirs[row] = 0.01
        theirs[row, (labels[row] + 1) % len(classes) if right[row] else labels[row]] = 0.9
    data = predictions.write(ONE_CLASS, ids, labels, theirs, classes, None)
    key = f"runs/digits/{run_id}/champion-predictions-7.parquet"
    store.create(key, data)
    reference = ObjectRef(key=key, sha256=sha256(data), bytes=len(data))
    evaluation = run.evaluation.model_copy(update={"champion_predictions": reference})
    store.create(f"runs/digits/{run_id}/evaluation-6.json", canonical(run.evaluation))
    store.create(f"runs/digits/{run_id}/evaluation-7.json", canonical(evaluation))
    recording.record(store, run.config, run.plan, run.results())


def folds_written(store: Store, version: str = "a1" * 6) -> list[float]:
    """The manifests of a made-up run's folds; every out-of-fold probability of the true label."""
    run = make(store, version=version)
    chances: list[float] = []
    for fit in run.fits:
        store.create(f"fits/digits/{version}/fold-{fit.fold}/manifest.json", canonical(fit))
        _, labels, probabilities = predictions.read(ONE_CLASS, store.get(fit.files[0].key), run.manifest.classes)
        chances += probabilities[np.arange(len(labels)), labels].tolist()
    return chances


def with_data(store: Store, config: Pipeline) -> int:
    """150 examples as the first record of the dataset's log; how many are in the holdout."""
    snapshot = fit_examples.land(store, config).snapshot
    assert snapshot is not None
    body = {
        **snapshot.model_dump(mode="json"), "batch": "first", "labels": list(snapshot.classes),
        "parts": [part.model_dump() for part in snapshot.parts],
    }  # fmt: skip
    history = dataset_state.snapshots(store, config.name)
    commit_log.commit(store, history, id="1", kind="batch", body=body, who="a test", why="data")
    from leptonflow.data.dataset import holdout_split

    return holdout_split.split(store, config, snapshot).holdout


# --- what it reads -------------------------------------------------------------------------------


def test_the_discordance_is_that_of_the_newest_run_that_compared_two(memory: Store) -> None:
    compared(memory, "b1" * 6, 40)
    compared(memory, "b2" * 6, 24)
    alone = make(memory, run_id="b3" * 6)  # the newest, which compared nothing
    recording.record(memory, alone.config, alone.plan, alone.results())
    seen = operating_curve.discordance_seen(memory, CONFIG)
    assert (seen.value, seen.assumption) == (24 / 400, None)
    assert "b2" * 6 in seen.source and CHAMPION in seen.source


def test_a_champion_weighed_against_itself_says_nothing(memory: Store) -> None:
    compared(memory, "b1" * 6, 40)
    compared(memory, "b2" * 6, 0, version=CHAMPION)
    assert operating_curve.discordance_seen(memory, CONFIG).value == 40 / 400


def test_without_a_champion_it_is_assumed_and_says_so(memory: Store) -> None:
    p = np.asarray(folds_written(memory))
    seen = operating_curve.discordance_seen(memory, CONFIG)
    assert seen.value == pytest.approx(2 * np.mean(p * (1 - p)))
    assert seen.assumption is not None and "assumed to be 2 mean(p (1 - p))" in seen.assumption
    assert f"{len(p)} examples" in seen.assumption


def test_changed_predictions_are_refused(memory: Store, tmp_path: Path) -> None:
    compared(memory, "b1" * 6, 40)
    path = memory.path(f"runs/digits/{'b1' * 6}/champion-predictions-7.parquet")
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match="champion-predictions-7"):
        operating_curve.discordance_seen(memory, CONFIG)


def test_of_two_versions_that_never_differ_it_is_what_is_still_possible(memory: Store) -> None:
    compared(memory, "b1" * 6, 40)
    compared(memory, "b2" * 6, 0)
    seen = operating_curve.discordance_seen(memory, CONFIG)
    assert (1 - seen.value) ** 400 == pytest.approx(0.05) and "b2" * 6 in seen.source
    assert seen.assumption is not None and "right on the same 400 examples" in seen.assumption


def test_todays_holdout_is_counted_in_the_dataset(memory: Store) -> None:
    config = fit_examples.pipeline(gate=GATE)
    count = with_data(memory, config)
    assert 10 < count < 60
    assert operating_curve.holdout_size(memory, config) == count
    curve, seen = operating_curve.curve(memory, config, discordance=0.1)
    assert (curve.n, curve.discordance, seen.assumption) == (count, 0.1, None)


def test_an_empty_store_is_one_clear_line(memory: Store) -> None:
    with pytest.raises(LeptonflowError, match="no trained version yet") as refused:
        operating_curve.curve(memory, CONFIG, holdout=100)
    assert "--discordance D" in str(refused.value.hint)
    with pytest.raises(LeptonflowError, match="no data yet") as refused:
        operating_curve.curve(memory, CONFIG, discordance=0.1)
    assert "--holdout N" in str(refused.value.hint)


def test_the_strictest_of_several_rules_is_simulated() -> None:
    rules = [{**GATE[0], "margin": margin} for margin in (0.02, 0.005)]
    assert simulation.strictest_rule(CONFIG.model_validate({**CONFIG.model_dump(), "gate": rules})) == (0.005, 0.95)


def test_superiority_is_a_bound_above_nothing() -> None:
    class Superior(AgainstChampion):
        test: Literal["non_inferiority", "superiority"] = "superiority"

    rule = Superior.model_validate({**GATE[0], "margin": 0.02})
    assert simulation.strictest_rule(CONFIG.model_copy(update={"gate": (rule,)})) == (-0.02, 0.95)


def test_a_gate_that_compares_no_accuracy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no effect"):
        simulation.strictest_rule(CONFIG.model_validate({**CONFIG.model_dump(), "gate": [{**GATE[0], "margin": 1.5}]}))
    for rules in ([{"rule": "at_least", "metric": "accuracy", "value": 0.9}], [{**GATE[0], "metric": "f1"}]):
        with pytest.raises(ConfigurationError, match="nothing to simulate"):
            simulation.strictest_rule(CONFIG.model_validate({**CONFIG.model_dump(), "gate": rules}))


# --- the gate's other rules ------------------------------------------------------------------------

SLICED = {"rule": "slices", "by": ["class", "n"], "minimum": 5}
EXACT = {"rule": "at_least", "metric": "accuracy", "on": "holdout", "value": 0.85}


def champion_is(store: Store, version: str) -> None:
    body = {
        "version": version, "previous": None, "run_id": "b1" * 6, "manifest_sha256": "0" * 64, "snapshot": "s",
        "snapshot_number": 1,
    }  # fmt: skip
    commit_log.commit(
        store, champion_log.promotions(store, "digits"), id="1", kind="promotion", body=body, who="a", why="b"
    )


@pytest.mark.parametrize("version", ["a1" * 6, CHAMPION])
def test_the_champions_accuracy_is_that_of_the_newest_run_that_scored_it(memory: Store, version: str) -> None:
    older = make(memory, version=CHAMPION, run_id="d4" * 6, seed=5)
    recording.record(memory, older.config, older.plan, older.results())
    compared(memory, "b1" * 6, 40)
    assert operating_curve.champion_accuracy(memory, CONFIG) is None, "no champion yet"
    champion_is(memory, version)
    evaluation = champion_metrics.last_evaluation(memory, "digits", "b1" * 6)
    assert evaluation is not None and evaluation.champion_scores is not None
    scores = evaluation.candidate_scores if version == "a1" * 6 else evaluation.champion_scores
    assert operating_curve.champion_accuracy(memory, CONFIG) == scores.metrics["accuracy"] is not None
    assert pipeline_status.status(memory, CONFIG)["metrics"] == scores.metrics
    assert champion.champion(memory, "digits").metrics == scores.metrics
    assert scores.metrics != older.evaluation.candidate_scores.metrics


def test_an_evaluation_that_cannot_be_read_leaves_the_rest_of_status(memory: Store, tmp_path: Path) -> None:
    compared(memory, "b1" * 6, 40)
    champion_is(memory, CHAMPION)
    assert pipeline_status.status(memory, CONFIG)["metrics"] is not None
    (tmp_path / "store" / "runs" / "digits" / ("b1" * 6) / "evaluation-7.json").write_bytes(b"garbage")
    told = pipeline_status.status(memory, CONFIG)
    assert told["metrics"] is None and told["last_run"]["run_id"] == "b1" * 6


def test_a_champion_that_no_run_has_scored_has_no_accuracy(memory: Store) -> None:
    compared(memory, "b1" * 6, 40)
    champion_is(memory, "c3" * 6)
    assert operating_curve.champion_accuracy(memory, CONFIG) is None


def test_slices_are_those_of_todays_holdout(memory: Store) -> None:
    config = fit_examples.pipeline(gate=[*GATE, SLICED])
    count = with_data(memory, config)
    found = operating_curve.todays_holdout(memory, config)
    assert found is not None and len(found.labels) == count and found.facts["n"].tolist() == [1.0] * count
    snapshot = dataset_state.state(config, dataset_state.snapshots(memory, config.name))
    assert snapshot is not None
    from leptonflow.data.dataset import example_sets

    assert found.labels.tolist() == example_sets.holdout_set(memory, config, snapshot).labels.tolist()
    curve, _ = operating_curve.curve(memory, config, discordance=0.3)
    assert [(rule.rule, rule.simulated) for rule in curve.rules] == [
        ("against_champion", True), ("against_champion_cv", False), ("slices", True),
    ]  # fmt: skip
    assert all(point.promoted <= (point.by_rule[0] or 0) for point in curve.points)
    wrong = fit_examples.pipeline(gate=[*GATE, {**SLICED, "by": ["britness"]}])
    with pytest.raises(ConfigurationError, match=r"gate\.1\.by"):
        operating_curve.curve(memory, wrong, discordance=0.3)


def test_the_command_names_what_it_simulates_and_what_it_cannot(command: Any, tmp_path: Path) -> None:
    full = tmp_path / "full.yaml"
    rules = [*GATE, EXACT, SLICED, {"rule": "fold_spread", "metric": "accuracy", "value": 0.05}]
    full.write_text(json.dumps({
        "name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": rules,
    }))  # fmt: skip
    options = ("--simulate", "--discordance", "0.1", "--holdout", "400")
    status, out, _ = command(*options, "--json", pipeline=full)
    empty = json.loads(out)
    assert status == 0 and not (tmp_path / "store").exists()
    assert [rule["simulated"] for rule in empty["rules"]] == [True, False, False, False, False]
    assert "no run has scored a champion" in empty["rules"][2]["why"]
    assert "no data has arrived" in empty["rules"][3]["why"]
    assert all(point["by_rule"][0] == point["promoted"] for point in empty["curve"])
    assert all(point["by_rule"][1:] == [None] * 4 for point in empty["curve"])
    assert "passes against_champion in" in empty["sentence"], "the other rules may refuse it"
    store = open_store((tmp_path / "store").as_uri())
    compared(store, "b1" * 6, 40)
    champion_is(store, CHAMPION)
    document = json.loads(command(*options, "--json", pipeline=full)[1])
    assert [rule["simulated"] for rule in document["rules"]] == [True, False, True, False, False]
    assert document["champion_accuracy"] == operating_curve.champion_accuracy(store, CONFIG)
    assert all(point["promoted"] <= min(point["by_rule"][0], point["by_rule"][2]) for point in document["curve"])
    assert (document["needed"], document["n"]) == (empty["needed"], 400)
    status, out, _ = command(*options, pipeline=full)
    assert "simulated: all of against_champion accuracy, at_least accuracy; computed: against_champion alone" in out
    assert "not simulated: fold_spread accuracy: it needs trained folds" in out
    assert "the champion's accuracy on the holdout" in out and "all 2 simulated rules in" in out


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """gate digits --simulate ... against this folder's store: (status, standard output, standard error)."""
    yaml = tmp_path / "digits.yaml"
    yaml.write_text(json.dumps({
        "name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": GATE,
    }))  # fmt: skip

    def run(*options: str, pipeline: Path = yaml) -> tuple[int, str, str]:
        status = main(["gate", str(pipeline), "--store", (tmp_path / "store").as_uri(), *options])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_the_command_answers_the_issues_question(command: Any, tmp_path: Path) -> None:
    status, out, _ = command("--simulate", "--discordance", "0.29", "--holdout", "2000", "--json")
    document = json.loads(out)
    assert status == 0
    assert {"n", "discordance", "curve", "needed", "margin", "confidence", "power", "assumption", "method"} <= {
        *document
    }
    assert (document["n"], document["discordance"]) == (2000, 0.29)
    assert (document["margin"], document["bound"]) == (0.01, -0.01)
    assert (document["confidence"], document["power"], document["assumption"]) == (0.95, 0.8, None)
    differences = [point["difference"] for point in document["curve"]]
    assert differences == sorted(differences) and {-0.02, 0.0, 0.02} <= {*differences}
    assert all(0 <= point["promoted"] <= 1 for point in document["curve"])
    assert document["needed"] > 2000 and "80% is not reached with 2,000 examples" in document["sentence"]
    assert not (tmp_path / "store").exists()  # which is not needed, and not made


def test_a_person_sees_a_table_and_a_picture(command: Any, tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    options = ("--simulate", "--discordance", "0.15", "--holdout", "2000", "--picture", str(picture))
    status, out, err = command(*options)
    assert (status, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip().startswith(("+", "-"))}
    assert rows["+0.0400"].count("\u2588") == 40 and "no difference" in rows["+0.0000"]
    assert "the bound" in rows["-0.0100"]
    assert "80% is reached with 2,000 examples" in out
    assert picture.read_text().startswith("<svg xmlns=")
    status, _, err = command(*options[:-1], str(tmp_path / "none" / "curve.svg"))
    assert status == 2 and "the picture cannot be written" in err


def test_the_command_names_its_assumption(command: Any, tmp_path: Path) -> None:
    folds_written(open_store((tmp_path / "store").as_uri()))
    status, out, _ = command("--simulate", "--holdout", "400")
    assert status == 0 and "an assumption: no run has scored a candidate beside another champion yet" in out
    status, out, _ = command("--simulate", "--holdout", "400", "--json")
    assert "2 mean(p (1 - p))" in json.loads(out)["assumption"]


def test_the_command_reads_what_the_runs_saw(command: Any, tmp_path: Path) -> None:
    compared(open_store((tmp_path / "store").as_uri()), "b1" * 6, 40)
    document = json.loads(command("--simulate", "--holdout", "400", "--json")[1])
    assert (document["n"], document["discordance"], document["assumption"]) == (400, 0.1, None)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ((), 2, "--simulate"),
        (("--simulate", "--discordance", "0"), 2, "discordance"),
        (("--simulate", "--discordance", "1.2", "--holdout", "10"), 2, "discordance"),
        (("--simulate", "--discordance", "nan", "--holdout", "10"), 2, "discordance"),
        (("--simulate", "--discordance", "0.1", "--holdout", "0"), 2, "holdout"),
        (("--simulate", "--discordance", "0.1", "--holdout", "10", "--power", "1"), 2, "power"),
        (("--simulate", "--discordance", "0.1", "--holdout", "10", "--better", "0.2"), 2, "discordance"),
        (("--simulate", "--discordance", "much", "--holdout", "10"), 2, "discordance"),
        (("--simulate",), 1, "no trained version yet"),
        (("--simulate", "--discordance", "0.1"), 1, "no data yet"),
    ],
)
def test_bad_input_is_one_line(command: Any, options: tuple[str, ...], status: int, said: str) -> None:
    found, out, err = command(*options, "--json")
    assert found == status
    assert said in err and err.count("\n") == 1
    assert json.loads(out)["error"]["message"]


def test_a_gate_without_the_rule_is_one_line(command: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({
        "name": "other", "workload": "image_classification", "input": [28, 28, 1],
        "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.9}],
    }))  # fmt: skip
    status, _, err = command("--simulate", "--discordance", "0.1", "--holdout", "10", pipeline=other)
    assert status == 2 and "nothing to simulate" in err and err.count("\n") == 1


def test_usage_is_checked_before_the_store_is_read() -> None:
    with pytest.raises(UsageError, match="discordance"):
        operating_curve.curve(open_store("memory://unread"), CONFIG, discordance=2.0)
