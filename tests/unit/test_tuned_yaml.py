"""The YAML of the best trial: the pipeline's own text with other values, comments kept, whatever its form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import pipeline_files
from leptonflow.tuning import tuned_yaml
from leptonflow.tuning.trials import changed
from schemas.config import Pipeline
from schemas.trials import Trial

HEAD = "# squares\nname: squares\nworkload: image_classification\ninput: [12, 12, 1]   # pixels\n"
TAIL = "gate:\n  - {rule: at_least, metric: accuracy, value: 0.5}  # low\n"
TUNE = (
    "tune: {learning_rate: [1e-5, 1e-2, log], batch_size: [8, 64], filters: {choices: [[4], [8, 16]]}, "
    "optimizer.weight_decay: [0, 0.1], class_weights: {choices: [none, balanced]}}\n"
)
VALUES = {"learning_rate": 1.5e-05, "batch_size": 24, "filters": [8, 16]}
FLOW = "training: {epochs: 3, learning_rate: 0.01}  # short\nmodel: {filters: [4], dense: 8}\n"
BLOCK = (
    "training:\n  # how long\n  epochs: 3\n  batch_size: 8   # small\n\n"
    "model:\n  filters:\n    - 4\n  # after the filters\n  dense: 8\n"
)
DUMPED = (
    "model:\n  dense: 8\n  filters:  # few\n  - 4\n  - 8\n  dropout: 0.1\n"
    "training:\n  epochs: 3\n  learning_rate: 0.01\n"
)
LIMITED = f"{FLOW}limits: {{train: 77}}\n"


def trial(parameters: dict[str, Any]) -> Trial:
    return Trial(
        pipeline="squares", study="s", number=2, state="complete", parameters=parameters, version="v", values=(1.0,),
        value=1.0, std=None, sentence=None, started_at="t", finished_at="t", seconds=1.0,
    )  # fmt: skip


def tuned(folder: Path, text: str, parameters: dict[str, Any]) -> tuple[str, Pipeline, Pipeline]:
    """(the tuned text, what a reader gets of it, what the trial was)."""
    path = folder / "squares.yaml"
    path.write_text(text)
    config = pipeline_files.load_config(str(path))
    made = tuned_yaml.text(text, config, trial(parameters), "s.")
    target = tuned_yaml.path(path)
    target.write_text(made)
    assert target.name == "squares.tuned.yaml"
    return made, pipeline_files.load_config(str(target)), changed(config, parameters)


@pytest.mark.parametrize("sections", [FLOW, BLOCK, DUMPED, "", "training: {}\nmodel:\n", LIMITED])
def test_the_text_with_other_values_is_the_trial_and_keeps_its_comments(tmp_path: Path, sections: str) -> None:
    source = HEAD + sections + TUNE + TAIL
    made, found, wanted = tuned(tmp_path, source, VALUES)
    assert (found.training, found.model, found.limits) == (wanted.training, wanted.model, wanted.limits)
    assert [line for line in source.splitlines() if "#" in line and line.lstrip().startswith("#")] == [
        line for line in made.splitlines() if line.lstrip().startswith("#")
    ][1:]
    assert made.startswith("# Tuned by the study s.\n# squares\n") and "# pixels" in made and "# low" in made
    lines = tuned_yaml.difference(source, made)
    assert 1 < len(lines) < 9 and any("1.5e-05" in line for line in lines) and not any("study" in x for x in lines)


def test_the_comment_of_an_earlier_study_is_replaced(tmp_path: Path) -> None:
    made, _, _ = tuned(tmp_path, "# Tuned by the study r.\n" + HEAD + FLOW + TUNE + TAIL, VALUES)
    assert made.startswith("# Tuned by the study s.\n# squares\n")


def test_what_cannot_be_changed_in_its_text_is_written_anew(tmp_path: Path) -> None:
    source = HEAD + "training: {optimizer: adamw, learning_rate: 0.01, devices: 2}\n" + TUNE + TAIL
    made, found, wanted = tuned(tmp_path, source, {"optimizer.weight_decay": 0.05, **VALUES})
    assert (found.training, found.model) == (wanted.training, wanted.model)
    assert found.training.devices == 2 and found.training.steering.weight_decay == 0.05 and "# pixels" not in made
    anchored = HEAD + "model: &m {filters: [4]}\ntraining: {epochs: 3}\n" + TUNE + TAIL
    _, found, wanted = tuned(tmp_path, anchored, VALUES)
    assert (found.training, found.model) == (wanted.training, wanted.model)


def test_text_values_stand_as_they_are_written(tmp_path: Path) -> None:
    made, found, _ = tuned(tmp_path, HEAD + FLOW + TUNE + TAIL, {"class_weights": "balanced"})
    assert "class_weights: balanced," in made and found.training.class_weights == "balanced"


def test_a_value_that_stays_as_it_was_is_not_written(tmp_path: Path) -> None:
    same = {"batch_size": 32, "class_weights": "none", "filters": [4]}
    made, found, wanted = tuned(tmp_path, HEAD + FLOW + TUNE + TAIL, {"learning_rate": 0.002, **same})
    (_, line) = tuned_yaml.difference(HEAD + FLOW + TUNE + TAIL, made)
    assert line == "+training: {epochs: 3, learning_rate: 0.002}  # short" and found.training == wanted.training


def test_a_tuned_yaml_is_no_pipeline_of_its_own(tmp_path: Path) -> None:
    tuned(tmp_path, HEAD + FLOW + TUNE + TAIL, VALUES)
    assert [*pipeline_files.available(tmp_path)] == ["squares"]
