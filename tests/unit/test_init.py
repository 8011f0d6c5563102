"""What `init` sees in a source and proposes for it; where it writes, and who finds that."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import pipeline_template
from flows import wanted_deployments
from leptonflow.core import pipeline_files
from leptonflow.data.ingest.label_columns import DEFAULT, Columns
from leptonflow.data.ingest.source_summary import Summary, summarise
from leptonflow.data.ingest.source_workload import choose
from leptonflow.gate.proposed_margin import propose
from leptonflow.workloads import proposed_epochs
from leptonflow.workloads.image_classification.cnn import smallest_side
from schemas.errors import UsageError
from tests.batches import put


def summary(source: Path, columns: Columns = DEFAULT) -> Summary:
    chosen = choose(source, columns, None)
    return summarise(chosen.source, chosen.workload)


def picture(path: Path, width: int, height: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if mode == "L" else (height, width, 3)
    Image.fromarray(np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8)).save(path)


def test_init_sees_what_ingest_will(tmp_path: Path) -> None:
    source = tmp_path / "s"
    put(source, "train/cat/a.png", "train/cat/b.png", "train/dog/c.png", "val/cat/d.png", "val/dog/e.png")
    (source / "train" / "notes").mkdir()
    (source / "train" / "notes" / "a.txt").write_text("x")
    (source / "train" / "broken").mkdir()
    (source / "train" / "broken" / "a.png").write_text("no image")
    (source / "train" / "cat" / "f.png").write_text("no image")
    found = summary(source)
    assert found.classes == {"cat": 4, "dog": 2} and found.unreadable == ("broken",)
    document = found.document()
    assert document["sizes"] == [[9, 9, 5]] and document["input"] == [9, 9, 3]
    assert (document["layout"], document["splits"], document["ignored"]) == ("folders", ["train", "val"], 1)
    told = " ".join([*found.lines(), *found.warnings()])
    assert "cat 4, dog 2" in told and "5 of 9 x 9" in told and "train, val" in told and "notes" in told
    assert "1 of 6 inspected images goes to quarantine (unreadable-image: " in told


def test_the_input_follows_the_images(tmp_path: Path) -> None:
    for number, side in enumerate((300, 400, 500)):
        picture(tmp_path / "large" / "abc"[number] / "1.png", side, 2 * side)
    assert summary(tmp_path / "large").document()["input"] == [64, 64, 3]
    for number, side in enumerate((40, 50, 60)):
        picture(tmp_path / "small" / "abc"[number] / "1.png", side, side, "L")
    assert summary(tmp_path / "small").document()["input"] == [48, 48, 1]
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "X.npy", np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8))
    np.save(tmp_path / "arrays" / "y.npy", np.array([1, 10, 2, 1]))
    found = summary(tmp_path / "arrays")
    assert (found.document()["input"], found.classes) == ([28, 28, 1], {"1": 2, "2": 1, "10": 1})


def test_rows_of_arrays_that_go_to_quarantine_are_told_with_the_first_reason(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.zeros((4, 8, 8), np.uint8))
    np.save(tmp_path / "y.npy", np.array(["cat", "dog"] * 2))
    found = summary(tmp_path)
    assert found.warnings()[0].startswith("4 rows go to quarantine, such as X.npy[0] (unreadable-array: the labels are")
    assert not found.no_label


@pytest.mark.parametrize("side", [8, 12, 17, 18])
def test_the_model_has_room_in_the_input(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        picture(tmp_path / "s" / name / "1.png", side, side)
    pipeline_template.write("small", summary(tmp_path / "s"))
    config = pipeline_files.load_config("small")
    assert config.input[:2] == (side, side)
    assert list(config.model.filters) == ([32, 64, 64] if side == 18 else [32, 64])
    assert smallest_side(len(config.model.filters)) <= side


def test_the_gate_asks_for_small_classes_and_more_than_a_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "s", *(f"com mon/{n}.png" for n in range(24)), "rare/0.png", "rare/1.png", '"x": y/0.png')
    path = pipeline_template.write("Zoo", summary(tmp_path / "s"))
    assert path == Path("pipelines/zoo.yaml")
    config = pipeline_files.load_config("zoo")
    rules = [(rule.rule, getattr(rule, "metric", None)) for rule in config.gate]
    assert ("baseline", "accuracy") in rules
    assert [metric for rule, metric in rules if rule == "at_least"] == ["accuracy", 'recall["x": y]', "recall[rare]"]
    assert "leptonflow retrain zoo\n" in path.read_text()
    put(tmp_path / "t", "only/0.png")
    pipeline_template.write("one", summary(tmp_path / "t"))
    assert pipeline_files.load_config("one").classes is None  # one class is no valid list of them
    steps = pipeline_template.next_steps(path, Path("s"), ["--label-column", "breed"])
    assert "ingest zoo s --label-column breed" in steps


@pytest.mark.parametrize(
    ("counts", "least"),
    [
        ((4, 4), 0.625),  # of two a model that guesses has 0.5
        ((18, 2), 0.925),
        ((3, 3, 3), 0.5),
        ((5, 1, 1, 1), 0.7188),
        ((1,) * 10, 0.5),
        ((1,) * 100, 0.5),
    ],
)
def test_the_accuracy_that_the_gate_requires_is_more_than_the_largest_class_has(
    counts: tuple[int, ...], least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "s", *(f"c{label}/{n}.png" for label, count in enumerate(counts) for n in range(count)))
    path = pipeline_template.write("pets", summary(tmp_path / "s"))
    rule = pipeline_files.load_config("pets").gate[0]
    assert (rule.rule, rule.value) == ("at_least", least)  # type: ignore[union-attr]
    share = max(counts) / sum(counts)
    told = f"Always predicting the largest class has an accuracy of {share:.4g};"
    assert rule.value > share and (told in path.read_text()) == (least > 0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("", "1 to 63 of the characters.*Received: ''"),
        ("ünï", "Received: 'ünï'. Such as uni"),
        ("a" * 300, "of 300 characters"),
        ("x/" + "a" * 300, "cannot be written"),
        ("...", "Choose another name"),
    ],
)
def test_a_name_that_no_pipeline_can_have(
    target: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        pipeline_template.write(target, None)
    assert re.search(told, error.value.line()) and len(error.value.line()) < 400
    assert list(tmp_path.glob("**/*.yaml")) == []


def test_nothing_is_written_into_a_folder_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "takes", "cat/0.png", "dog/0.png")
    assert pipeline_template.write("takes", None, Path("takes")) == Path("pipelines/takes.yaml")
    for inside in ("takes/cat", str(tmp_path / "takes"), "takes/new"):
        with pytest.raises(UsageError, match="would lie among the data"):
            pipeline_template.write(inside, None, Path("takes"))
    assert list((tmp_path / "takes").glob("**/*.yaml")) == []


def test_the_margin_is_one_that_the_holdout_can_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "s", *(f"cat/{n}.png" for n in range(30)), *(f"dog/{n}.png" for n in range(30)))
    found = summary(tmp_path / "s")
    text = pipeline_template.write("small", found).read_text()
    assert pipeline_files.load_config("small").gate[-1].margin == 0.2  # type: ignore[union-attr]
    assert "# Proposed: a holdout of about 12 can show no smaller one: 0.03 needs about 890 examples in all." in text
    assert pipeline_template.lines(found)[-1].startswith("margin   0.2: a holdout of about 12")
    # A folder per class has no column, and a table of texts no files.
    assert "# group: {pattern:" in text and "# group: {folder: parent}" in text and "group: {column" not in text
    pipeline_template.write("plain", None)
    assert pipeline_files.load_config("plain").gate[-1].margin == 0.03  # type: ignore[union-attr]
    assert propose(10_000, 0.2).needed is None and propose(5, 0.2).least == 40


def test_a_bare_name_goes_under_pipelines_and_a_path_or_folder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pipeline_template.write("a", None) == Path("pipelines/a.yaml")
    assert Path("pipelines/a.contract.yaml").is_file()
    with pytest.raises(UsageError, match=r"pipelines/a\.yaml exists"):
        pipeline_template.write("a", None)
    assert pipeline_template.write("pipelines/b", None) == Path("pipelines/b/b.yaml")
    Path("c").mkdir()
    assert pipeline_template.write("c", None) == Path("c/c.yaml")
    assert pipeline_template.write(str(tmp_path / "d"), None) == tmp_path / "d" / "d.yaml"
    # A pipeline in a folder of its own is found by its name: by every command, and by deploy.
    assert pipeline_files.load_config("b").name == "b"
    assert [each.parameters["pipeline"] for each in wanted_deployments.read(tmp_path)] == ["a", "b"]
    assert [each.name for each in wanted_deployments.read(tmp_path)] == ["a", "b"]
    Path("pipelines/b/notes.yaml").write_text("a: 1\n")
    assert list(pipeline_files.available()) == ["a", "b"]
    Path("pipelines/e").mkdir()
    Path("pipelines/e/b.yaml").write_text(Path("pipelines/b/b.yaml").read_text())
    with pytest.raises(UsageError, match="two pipelines are called b"):
        pipeline_files.load_config("b")


def test_what_stands_in_comments_is_valid_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = pipeline_template.write("zoo", None)
    optional = ("schedule", "serving", "notify", "promotion", "limits", "looks")
    text = re.sub(rf"^# (?=({'|'.join(optional)}): \{{)", "", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    config = pipeline_files.load_config("zoo")
    assert config.schedule and config.notify and config.promotion
    assert config.serving.monitor and config.serving.log_inputs


def test_few_examples_have_more_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "s", *(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(100)))
    found = summary(tmp_path / "s")
    text = pipeline_template.write("small", found).read_text()
    assert pipeline_files.load_config("small").training.epochs == 75
    assert "\n# Epochs proposed: a fold learns from about 128 examples, 4 steps an epoch.\ntraining: {" in text
    assert "epochs   75: a fold learns from about 128 examples, 4 steps an epoch" in pipeline_template.lines(found)
    assert "# Epochs" not in pipeline_template.write("plain", None).read_text()
    assert pipeline_files.load_config("plain").training.epochs == 10

    assert proposed_epochs.propose(10, 32, 10, 300).number == proposed_epochs.MOST
    assert proposed_epochs.propose(1_500, 32, 10, 300) == (10, None)
    assert proposed_epochs.propose(1_400, 32, 10, 300).number == 11
