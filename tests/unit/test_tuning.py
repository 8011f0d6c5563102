"""A study: what the YAML may say, what a trial tries, what lies on the store, and that it goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import pipeline_files, progress, store_keys
from leptonflow.data.dataset import dataset_state, example_sets, holdout_split
from leptonflow.reports import study_page
from leptonflow.runs import inventory, planning
from leptonflow.storage import commit_log as commits
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.tables import table_sources
from leptonflow.training import model_fits
from leptonflow.training.workspace import Workspace
from leptonflow.tuning import search, search_space, study_records, trials
from leptonflow.tuning.trials import changed
from leptonflow.workloads import predictions
from leptonflow.workloads.classification import ONE_CLASS
from schemas import tuning
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, TrainingError
from schemas.records import Plan
from schemas.trials import Study, Trial
from tests.fit_examples import CLASSES, land, pipeline

RANGES = {"learning_rate": [1e-4, 1e-2, "log"], "dropout": [0.6, 0.9], "dense": [4, 16],
          "filters": {"choices": [[4], [4, 8]]}}  # fmt: skip
YAML = "name: squares\nworkload: image_classification\ninput: [12, 12, 1]\n{more}\ngate: [{{rule: at_least, metric: accuracy, value: 0.5}}]\n"  # noqa: E501


def loaded(folder: Path, more: str) -> Pipeline:
    path = folder / "squares.yaml"
    path.write_text(YAML.format(more=more))
    return pipeline_files.load_config(str(path))


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{learning_rat: [1e-4, 1e-2]}", r"tune\.learning_rat is not valid \(line 4\).*one of epochs, batch_size"),
        ("{folds: [2, 5]}", r"tune\.folds.*one of epochs"),
        ("{seed: [0, 5]}", r"tune\.seed"),
        ("{learning_rate: [1e-2, 1e-4]}", r"tune\.learning_rate.*the lower one first"),
        ("{learning_rate: [0, 1e-2]}", r"tune\.learning_rate.*greater than 0"),
        ("{dropout: [0, 0.5, log]}", r"tune\.dropout.*above 0"),
        ("{dropout: [0, 1.5]}", r"tune\.dropout.*less than 1.*1\.5"),
        ("{batch_size: [8.0, 64.0]}", r"tune\.batch_size.*integer"),
        ("{batch_size: {choices: [8]}}", r"tune\.batch_size.*two or more"),
        ("{batch_size: {choices: [8, 8]}}", r"tune\.batch_size.*once"),
        ("{optimizer: {choices: [adam, sgdx]}}", r"tune\.optimizer.*one of adam.*sgdx"),
        ("{optimizer.momentum: [0, 1]}", r"tune\.optimizer\.momentum"),
        ("{metric: acc, epochs: [1, 2]}", r"tune\.metric.*one of accuracy"),
        ("{metric: accuracy}", r"tune is not valid.*one or more keys"),
        ("[learning_rate]", r"tune is not valid.*a mapping"),
    ],
)
def test_a_wrong_range_names_its_key_and_line(tmp_path: Path, section: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        loaded(tmp_path, f"tune: {section}")


def test_keys_that_nothing_reads_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tune\.dropout.*model\.function builds the model"):
        loaded(tmp_path, "model: {function: 'm:build'}\ntune: {dropout: [0, 0.5]}")


def test_a_value_goes_to_its_place(tmp_path: Path) -> None:
    config = loaded(tmp_path, "training: {optimizer: adamw, learning_rate: 0.01, devices: 2}\n"
                    "tune: {optimizer.weight_decay: [0, 0.1], batch_size: {choices: [8, 16]}, filters: {choices: [[4], [8]]}}")  # fmt: skip # noqa: E501
    made = changed(config, {"optimizer.weight_decay": 0.05, "batch_size": 8, "filters": [8]})
    steering = made.training.steering
    assert (steering.name, steering.learning_rate, steering.weight_decay) == ("adamw", 0.01, 0.05)
    assert (made.training.batch_size, made.training.devices, made.model.filters) == (8, 2, (8,))
    both = loaded(tmp_path, "tune: {optimizer.clip_norm: [1, 2], learning_rate: [0.1, 1]}")
    values = {"optimizer.clip_norm": 1.0, "optimizer": "sgd", "learning_rate": 0.2}
    for order in (values, dict(reversed(values.items()))):
        steering = changed(both, order).training.steering
        assert (steering.name, steering.clip_norm, steering.learning_rate) == ("sgd", 1.0, 0.2), "in whatever order"
    mapping = loaded(tmp_path, "training: {optimizer: {name: sgd, clip_norm: 1}}\ntune: {learning_rate: [0.1, 1]}")
    assert changed(mapping, {"learning_rate": 0.5}).training.steering.learning_rate == 0.5
    assert tuning.current("learning_rate", mapping.training, mapping.model) == 0.001
    more = loaded(tmp_path, "training: {early_stopping: {patience: 3}, augment: [{shift: [-0.1, 0.1]}]}")
    found = [tuning.current(key, more.training, more.model) for key in ("early_stopping", "augment", "filters")]
    assert found == [{"patience": 3}, [{"shift": [-0.1, 0.1]}], [32, 64, 64]], "as a choice is written"


def test_the_section_is_in_no_version_and_in_no_document(tmp_path: Path) -> None:
    plain, tuned = pipeline(), pipeline(tune=RANGES)
    plan = land(MemoryStore("memory://versions"), plain)
    assert plan.snapshot is not None
    code = {"train": "t", "gate": "g"}
    assert planning.ids(plain, plan.snapshot, code, 0) == planning.ids(tuned, plan.snapshot, code, 0)
    assert planning.asked(plain, "c") == planning.asked(tuned, "c")
    assert plain.model_dump_json() == tuned.model_dump_json()


# --- what a trial tries ---------------------------------------------------------------------------

STUDY = Study(
    pipeline="squares", study="5" * 12, version="a" * 12, snapshot="b" * 12, metric="accuracy", higher_is_better=True,
    folds=4, ranges=RANGES, created_at="2026-11-28T12:00:00.000000Z",
)  # fmt: skip


def trial(number: int, rate: float, *values: float | None, state: str = "complete", **more: Any) -> Trial:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    parameters = {"learning_rate": rate, "dropout": 0.6, "dense": 8, "filters": [4]}
    return Trial.model_validate({
        "pipeline": "squares", "study": STUDY.study, "number": number, "state": state, "parameters": parameters,
        "version": f"{number:012x}", "values": values, "value": mean, "std": None, "sentence": None,
        "started_at": "2026-11-28T12:00:00.000000Z", "finished_at": "2026-11-28T12:00:01.000000Z", "seconds": 1.0,
        **more,
    })  # fmt: skip


def test_suggestions_follow_from_the_records_alone_and_lie_in_the_ranges() -> None:
    config = pipeline(tune=RANGES)
    done = [trial(n, 10 ** (-4 + n / 10), 0.5 + n / 50) for n in range(1, 13)]
    done += [trial(13, 0.5, 0.9), trial(14, 1e-3, state="failed"), trial(15, 1e-3, 0.2, state="pruned")]
    seen = []
    for count in range(1, 16):
        found = search_space.suggestion(STUDY, config, done[:count]).parameters
        assert found == search_space.suggestion(STUDY, config, done[:count]).parameters
        assert 1e-4 <= found["learning_rate"] <= 1e-2 and 0.6 <= found["dropout"] <= 0.9
        assert isinstance(found["dense"], int) and 4 <= found["dense"] <= 16 and found["filters"] in ([4], [4, 8])
        assert found["learning_rate"] == float(f"{found['learning_rate']:.3g}"), "short enough for a YAML"
        seen.append(str(found))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("higher", [True, False])
def test_a_trial_is_hopeless_after_the_second_fold_below_the_median_of_five(higher: bool) -> None:
    config, study = pipeline(tune=RANGES), STUDY.model_copy(update={"higher_is_better": higher})
    sign = 1 if higher else -1
    done = [trial(n, 1e-3, *[sign * (0.5 + n / 100)] * 4) for n in range(1, 6)]
    bad, good = sign * 0.3, sign * 0.9
    early = search_space.suggestion(study, config, done[:4])
    assert not early.hopeless(0, bad) and not early.hopeless(1, bad), "too few to compare with"
    late = search_space.suggestion(study, config, done)
    assert not late.hopeless(0, bad) and late.hopeless(1, bad)
    fine = search_space.suggestion(study, config, done)
    assert not fine.hopeless(0, good) and not fine.hopeless(1, good)


def test_the_best_is_the_first_of_the_best_complete_ones() -> None:
    found = [trial(1, 1e-3, 0.5), trial(2, 1e-3, 0.9, state="pruned"), trial(3, 1e-3, 0.7), trial(4, 1e-3, 0.7)]
    assert study_records.best(STUDY, found) == found[2]
    assert study_records.best(STUDY.model_copy(update={"higher_is_better": False}), found) == found[0]
    assert study_records.best(STUDY, [trial(1, 1e-3, state="failed")]) is None


# --- a study on a store ---------------------------------------------------------------------------


def dataset(store: Store, config: Pipeline) -> Plan:
    """A small dataset that a batch has brought."""
    plan = land(store, config, count=90)
    snapshot = plan.snapshot
    assert snapshot is not None
    body = {
        "batch": "first", "parts": [part.model_dump(mode="json") for part in snapshot.parts],
        "snapshot": snapshot.snapshot, "content": snapshot.content, "classes": list(CLASSES),
        "labels": dict.fromkeys(CLASSES, 30), "preprocessing": snapshot.preprocessing, "holdout": snapshot.holdout,
        "examples": snapshot.examples, "outcome": None,
    }  # fmt: skip
    log = dataset_state.snapshots(store, config.name)
    commits.commit(store, log, id="first", kind="batch", body=body, who="kim", why="it arrived")
    return plan


def small(**changes: Any) -> Pipeline:
    return pipeline(**{
        "training": {"epochs": 1, "batch_size": 16, "folds": 2},
        "model": {"filters": [4], "dense": 4},
        "tune": {"learning_rate": [0.001, 0.1, "log"], "metric": "log_loss"}, **changes,
    })  # fmt: skip


def stopping_at(fit: str, trial_number: int) -> Any:
    """A listener that ends the process's work as Ctrl-C does, when that fit of that trial has begun."""
    seen = []

    def report(stage: str, done: int, total: int) -> None:
        if stage == fit and (not seen or seen[-1] > done):
            if len(seen) + 1 == trial_number:
                raise KeyboardInterrupt
            seen.append(0)
        elif stage == fit:
            seen[-1] = done

    return report


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key, _ in store.list("")}


def test_a_study_that_goes_on_keeps_the_order_of_the_yaml(tmp_path: Path) -> None:
    config, store = pipeline(tune=RANGES), open_store(str(tmp_path))
    plan = dataset(store, config)
    for _ in ("begun", "goes on"):
        study = study_records.begin(store, config, plan)
        assert list(study.ranges) == list(RANGES)
    study_records.record(store, trial(1, 1e-3, 0.5).model_copy(update={"study": study.study}))
    (found,) = study_records.trials(store, study)
    assert list(found.parameters) == list(RANGES) != sorted(RANGES)


@pytest.mark.slow
def test_a_study_goes_on_elsewhere_and_loses_at_most_the_running_trial(tmp_path: Path) -> None:
    config = small()
    here = open_store(str(tmp_path / "here"))
    plan = dataset(here, config)
    final = store_keys.checkpoint_key(config.name, str(planning.plan(here, config).version), None, 1, 1, "a" * 64)
    here.create(final, b"of a run that was stopped in its final fit")
    with progress.listen(stopping_at("fold 2", 2)), pytest.raises(KeyboardInterrupt):
        search.tune(here, config, 3)
    assert plan.snapshot is not None
    before = contents(here)
    records = [key for key in before if store_keys.is_trial(key)]
    assert [key[-13:] for key in records] == ["00000001.json"]
    (tmp_path / "here").rename(tmp_path / "there")
    store, notes = open_store(str(tmp_path / "there")), list[str]()
    with progress.listen(None, notes.append):
        document, best = search.tune(store, config, 4)
    after = contents(store)
    assert {key: after[key] for key in before} == before, "nothing that lay there was written again"
    assert [key for key in after if key.startswith("scratch/")] == [final], "nothing of the folds is left there"
    assert any("goes on after 1 trial" in note for note in notes)
    assert any("fold 1 reused" in note for note in notes), "even of the trial that was lost"
    assert [each["number"] for each in document["trials"]] == [1, 2, 3, 4]
    assert best.state == "complete" and document["default"] == document["trials"][0]["value"]
    assert Path(document["report"]).read_text().count("<svg") == 1
    _holdout_unseen(store, config, plan, after)
    _in_the_tables(store)
    notes.clear()
    with progress.listen(None, notes.append):
        again, _ = search.tune(store, config, 4)
    assert again == document and contents(store) == after, "as many as wanted: nothing is done"
    assert notes == [f"the study {document['study']} has 4 trials already: nothing is trained"]
    _failed_trials_are_recorded(store, config)
    keys = {each.key for each in inventory._documents(store, f"studies/{config.name}")}
    assert {key for key in after if store_keys.is_trial(key)} <= keys, "verify reads them"


def _failed_trials_are_recorded(store: Store, config: Pipeline) -> None:
    plan = planning.plan(store, config)
    study, never = study_records.begin(store, config, plan), lambda fold, mean: False
    diverged = trials.run(store, config, plan, study, 5, {"learning_rate": 1e30}, never, Workspace())
    assert (diverged.state, diverged.value) == ("failed", None) and "diverged" in str(diverged.sentence)
    together = {"early_stopping.patience": 0}
    wrong = trials.run(store, config, plan, study, 6, together, never, Workspace())
    assert wrong.state == "failed" and wrong.version is None and "greater than or equal to 1" in str(wrong.sentence)
    large = trials.run(store, config, plan, study, 6, {"filters": [2**22], "batch_size": 90}, never, Workspace())
    assert large.state == "failed" and large.version is None
    assert "a step of training does not fit into memory: a batch of 90 examples" in str(large.sentence)
    assert study_records.record(store, diverged) and not study_records.record(store, diverged), "each number once"


def _holdout_unseen(store: Store, config: Pipeline, plan: Plan, after: dict[str, bytes]) -> None:
    """The folds of all trials together are the training examples, and nothing else."""
    assert plan.snapshot is not None
    train = set(example_sets.training_set(store, config, plan.snapshot).ids)
    held = set(example_sets.holdout_set(store, config, plan.snapshot).ids)
    files = [key for key in after if key.endswith("oof.parquet")]
    seen = {example for key in files for example in predictions.read(ONE_CLASS, after[key], CLASSES)[0]}
    assert held and seen == train and not seen & held
    manifests = [model_fits.fit_result(store, config.name, key.split("/")[2], 0) for key in files]
    assert all(fit is not None and fit.examples <= len(train) // 2 + 1 for fit in manifests)


def _in_the_tables(store: Store) -> None:
    table = table_sources.from_log(store, "trials")
    assert table is not None
    rows = table.to_pylist()
    assert [row["trial"] for row in rows] == [1, 2, 3, 4]
    assert {row["metric"] for row in rows} == {"log_loss"} and all(row["snapshot"] for row in rows)
    assert rows[0]["folds"] == 2 and '"learning_rate": 0.001' in rows[0]["parameters"]


OWN = """
import keras
from pathlib import Path


def build(input, classes):
    width = int(Path(__file__).with_name("width.txt").read_text())
    layers = keras.layers
    stack = [layers.Input(input), layers.Flatten(), layers.Dense(width), layers.Dense(len(classes), "softmax")]
    return keras.Sequential(stack)
"""


@pytest.mark.parametrize("name", ["own.py", "width.txt"])
def test_a_study_ends_where_the_model_changes_under_way(tmp_path: Path, name: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "width.txt").write_text("2")
    config = small(model={"function": "own:build", "files": ["*.txt"]}, tune={"learning_rate": [1e-4, 1e-2, "log"]})
    config = config.model_copy(update={"folder": tmp_path})
    store = MemoryStore("memory://changes")
    dataset(store, config)

    def edited(line: str) -> None:
        if line.startswith("trial 1 of 3"):
            (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")

    told = rf"{name.replace('.', '[.]')} changed while the run was under way"
    with progress.listen(None, edited), pytest.raises(ConfigurationError, match=told):
        search.tune(store, config, 3)
    assert [key[-13:] for key in store.keys("studies") if store_keys.is_trial(key)] == ["00000001.json"]


def test_what_cannot_be_tuned_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"does not say what to tune.*docs/tuning\.md"):
        search.tune(store, pipeline(), 3)
    with pytest.raises(TrainingError, match="nothing to train on yet"):
        search.tune(store, small(), 3)


@pytest.mark.parametrize(
    "section",
    [
        {"tune": {"dropout": [0, 0.5], "metric": "recall[nine]"}},
        {"stop_early_if": {"metric": "recall[nine]", "below": 0.5}, "training": {"folds": 5}},
    ],
)
def test_a_metric_of_a_class_that_the_data_do_not_have_is_told(tmp_path: Path, section: dict[str, Any]) -> None:
    store, config = open_store(str(tmp_path)), pipeline(**section)
    plan = dataset(store, config)
    assert plan.snapshot is not None
    told = rf"{next(iter(section))}\.metric names a class that is not there.*nine"
    with pytest.raises(ConfigurationError, match=told):
        holdout_split.split(store, config, plan.snapshot)


def test_no_time_no_trial(tmp_path: Path) -> None:
    store, config = open_store(str(tmp_path)), small()
    dataset(store, config)
    with pytest.raises(TrainingError, match=r"no trial of the study .* is complete.*0 trials.*a longer --timeout"):
        search.tune(store, config, 3, 0.0)


def test_a_page_escapes_what_comes_from_outside() -> None:
    study = STUDY.model_copy(update={"metric": "recall[<script>alert(1)</script>]"})
    found = [trial(1, 1e-3, 0.5), trial(2, 1e-3, state="failed", sentence="<script>alert(2)</script>"),
             trial(3, 2e-3, None, None)]  # fmt: skip
    html = study_page.render(study, found, found[0]).decode()
    assert "<script" not in html and "alert(2)" in html and "3 trials: 2 complete, 1 failed" in html
    assert "None is complete" in study_page.render(study, [], None).decode()
