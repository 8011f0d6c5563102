"""The example of docs/transfer-learning.md, as it stands there, from weights in a local file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from leptonflow.core import pipeline_files
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.workloads import catalog, user_model
from schemas import yaml_text
from schemas.config import Pipeline
from schemas.errors import ConfigurationError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "transfer-learning.md").read_text(encoding="utf-8")
CLASSES = ("daisy", "rose")


def example(folder: Path, weights: Path, **changes: Any) -> Path:
    """The page's YAML at 32 x 32, with its module and these weights beside it."""
    (text,) = re.findall("```yaml\n(.*?)```", PAGE, re.DOTALL)
    document = dict(yaml_text.load(text.encode(), "the page").value)
    (code,) = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
    folder.mkdir(exist_ok=True)
    (folder / "mobilenet.py").write_text(code)
    (folder / weights.name).write_bytes(weights.read_bytes())
    document["model"]["weights"] = weights.name
    path = folder / "flowers.yaml"
    path.write_text(yaml.safe_dump({**document, "input": [32, 32, 3], **changes}))
    return path


def random_weights(folder: Path) -> Path:
    """A file of today's Keras, which reads its older ones as well."""
    base = keras().applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, pooling="avg", weights=None)
    base.save_weights(folder / "mobilenet.weights.h5")
    return folder / "mobilenet.weights.h5"


def loaded(path: Path) -> tuple[Any, Pipeline]:
    config = pipeline_files.load_config(str(path))
    return catalog.load(config.workload), config


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.mark.slow
def test_the_page_s_model_starts_frozen_and_its_callback_unfreezes_it(tmp_path: Path, weights: Path) -> None:
    workload, config = loaded(example(tmp_path, weights))
    model = workload.build(config, CLASSES)
    assert user_model.compiled(config, model)
    assert [each.name for each in model.trainable_variables] == ["kernel", "bias"]
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)
    (unfreeze,) = user_model.callbacks(config)
    unfreeze.set_model(model)
    unfreeze.on_epoch_begin(4)
    assert len(model.trainable_variables) == 2
    unfreeze.on_epoch_begin(5)
    assert len(model.trainable_variables) > 100
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-5)


@pytest.mark.slow
def test_weights_of_another_width_are_told(tmp_path: Path, weights: Path) -> None:
    path = example(tmp_path, weights)
    (tmp_path / "mobilenet.py").write_text((tmp_path / "mobilenet.py").read_text().replace("alpha=0.35", "alpha=0.5"))
    workload, config = loaded(path)
    with pytest.raises(ConfigurationError, match=r"raised an error.*could not be loaded.*\(mobilenet\.py:5\)"):
        workload.build(config, CLASSES)
