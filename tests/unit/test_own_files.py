"""What a model declares: part of the version, in its package, told where it is missing, another, or not declared."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonflow.core import declared_files, pipeline_files
from leptonflow.keras_runtime.keras_models import keras
from leptonflow.registry import model_sources
from leptonflow.runs import planning
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training.workspace import Workspace
from leptonflow.workloads import catalog, user_weights
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, StoreUnreachable
from tests.fit_examples import CLASSES, land, pipeline

WORKLOAD = catalog.load("image_classification")
CODE = """
import json
from pathlib import Path
import keras

UNITS = json.loads(Path(__file__).with_name("units.json").read_text())

def build(input, classes, weights):
    layers = keras.layers
    base = keras.Sequential([layers.Input(input), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(UNITS)])
    base.load_weights(weights)
    return keras.Sequential([base, layers.Dense(len(classes), activation="softmax")])
"""


def weights_file(path: Path, units: int = 4, value: float = 0.25) -> Path:
    layers = keras().layers
    made = keras().Sequential([
        layers.Input((12, 12, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(units)
    ])  # fmt: skip
    made.layers[-1].set_weights([np.full((144, units), value, np.float32), np.zeros(units, np.float32)])
    made.save_weights(path)
    return path


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of two models, made once."""
    folder = tmp_path_factory.mktemp("weights")
    weights_file(folder / "four.weights.h5")
    weights_file(folder / "other.weights.h5", value=0.5)
    weights_file(folder / "five.weights.h5", units=5)
    return folder


@pytest.fixture
def folder(tmp_path: Path, weighed: Path) -> Path:
    (tmp_path / "weighty.py").write_text(CODE)
    (tmp_path / "units.json").write_text("4")
    (tmp_path / "w.weights.h5").write_bytes((weighed / "four.weights.h5").read_bytes())
    return tmp_path


def own(folder: Path, **keys: Any) -> Pipeline:
    model = {"function": "weighty:build", "weights": "w.weights.h5", "files": ["*.json"], **keys}
    return pipeline(model={key: value for key, value in model.items() if value is not None}, folder=folder)


def version(config: Pipeline, store: MemoryStore) -> str:
    plan = land(store, config)
    assert plan.snapshot is not None
    return planning.ids(config, plan.snapshot, {"train": "t", "gate": "g"}, 0, declared_files.digests(config))[0]


def test_another_file_is_another_version(folder: Path, weighed: Path) -> None:
    store = MemoryStore("memory://declared")
    config = own(folder)
    seen = [version(config, store)]
    asked = planning.asked(config, "c")
    (folder / "w.weights.h5").write_bytes((weighed / "other.weights.h5").read_bytes())
    seen.append(version(config, store))
    (folder / "units.json").write_text(" 4")
    seen.append(version(config, store))
    assert len(set(seen)) == 3 and planning.asked(config, "c") != asked
    assert declared_files.digests(pipeline()) == {}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"weights": "gone.h5"}, r"model\.weights gone\.h5 cannot be read.*No such file"),
        ({"files": ["*.csv"]}, r"model\.files: nothing matches \*\.csv"),
        ({"files": ["*.latin"]}, r"model\.files \\udce4\.latin cannot be read.*can have that name"),
    ],
)
def test_a_missing_file_is_told_when_it_is_planned(folder: Path, keys: dict[str, Any], told: str) -> None:
    (folder / os.fsdecode(b"\xe4.latin")).write_text("")
    with pytest.raises(ConfigurationError, match=told):
        declared_files.digests(own(folder, **keys))


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("{weights: w.h5}", r"model\.weights is not valid \(line 4\).*model\.function as well"),
        ("{files: ['*.h5']}", r"model\.files is not valid.*nothing else reads the files"),
        ("{function: 'm:b', weights: ../w.h5}", r"model\.weights.*stays below"),
        ("{function: 'm:b', files: [/etc/*]}", r"model\.files.*stays below"),
        ("{function: 'm:b', files: ['**']}", r"model\.files.*patterns of files"),
        ("{function: 'm:b', files: [.]}", r"model\.files.*patterns of files"),
        ("{function: 'm:b', weights: 's3://b/w.h5'}", r"model\.weights.*uri: \.\.\., sha256"),
        ("{function: 'm:b', weights: {uri: 's3://b/w.h5'}}", r"model\.weights\.sha256 is missing"),
        ("{function: 'm:b', weights: {uri: 's3://b/w.h5', sha256: abc}}", r"model\.weights\.sha256.*64 hex digits"),
        ("{function: 'm:b', weights: {uri: 'ftp://b/w', sha256: abc}}", r"model\.weights\.uri.*https, http, s3, file"),
        ("{function: 'm:b', weights: {uri: 'https://h/w?token=x', sha256: abc}}", r"model\.weights\.uri.*without cred"),
        ("{function: 'm:b', weights: {uri: 'https://h/a/..', sha256: abc}}", r"model\.weights\.uri.*NAME"),
        (f"{{function: 'm:b', weights: {{uri: 's3://b/w', sha256: {'a' * 64}, url: x}}}}", r"weights\.url.*sha256"),
    ],
)
def test_wrong_keys_name_themselves(tmp_path: Path, model: str, told: str) -> None:
    path = tmp_path / "squares.yaml"
    path.write_text(
        f"name: squares\nworkload: image_classification\ninput: [12, 12, 1]\nmodel: {model}\n"
        "gate: [{rule: at_least, metric: accuracy, value: 0.5}]\n"
    )
    with pytest.raises(ConfigurationError, match=told):
        pipeline_files.load_config(str(path))


def test_a_pattern_leaves_out_what_is_hidden_unless_it_says_so(folder: Path) -> None:
    (folder / ".env").write_text("PASSWORD=1")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "old.json").write_text("4")
    assert [*declared_files.declared(own(folder, files=["**/*.json", "*"]))] == [
        "units.json", "w.weights.h5", "weighty.py"
    ]  # fmt: skip
    assert ".env" in declared_files.declared(own(folder, files=[".env"]))


def test_a_file_that_the_code_names_and_nobody_declares_is_warned_about(folder: Path) -> None:
    (folder / "weighty.py").write_text(CODE + 'LIST = ["units.json", "w.weights.h5", "nothing.txt", "classes.txt"]\n')
    (folder / "classes.txt").write_text("a b")
    assert declared_files.undeclared(own(folder, files=["*"])) == []
    (line,) = declared_files.undeclared(own(folder, files=None))
    assert "names classes.txt, units.json, which model.files does not declare" in line
    assert declared_files.undeclared(pipeline()) == []


def test_the_function_gets_the_weights_and_the_package_a_copy(folder: Path) -> None:
    config = own(folder)
    model = WORKLOAD.build(config, CLASSES)
    assert (np.asarray(model.layers[0].layers[-1].kernel) == 0.25).all()
    data = model_sources.archive(config)
    assert data == model_sources.archive(config) and data is not None
    with zipfile.ZipFile(BytesIO(data)) as file:
        assert file.namelist() == ["units.json", "w.weights.h5", "weighty.py"]
    (folder / "weighty.py").write_text("edited since")
    (folder / "w.weights.h5").unlink()
    with model_sources.unpacked(data, config) as again:
        model = WORKLOAD.build(again, CLASSES)
    assert (np.asarray(model.layers[0].layers[-1].kernel) == 0.25).all()
    assert model_sources.archive(pipeline()) is None


def test_weights_of_another_shape_are_told_with_the_line_that_loads_them(folder: Path, weighed: Path) -> None:
    (folder / "w.weights.h5").write_bytes((weighed / "five.weights.h5").read_bytes())
    with pytest.raises(ConfigurationError, match=r"raised an error.*\(144, 4\).*\(144, 5\).*\(weighty\.py:11\)"):
        WORKLOAD.build(own(folder), CLASSES)
    (folder / "w.weights.h5").write_bytes(b"no weights at all")
    with pytest.raises(ConfigurationError, match=r"raised an error.*weighty\.py:11"):
        WORKLOAD.build(own(folder), CLASSES)


def test_a_function_that_takes_no_weights_is_told(folder: Path) -> None:
    (folder / "weighty.py").write_text(CODE.replace("classes, weights)", "classes)"))
    with pytest.raises(ConfigurationError, match=r"takes other arguments.*build\(input, classes, weights\).*Received"):
        WORKLOAD.build(own(folder), CLASSES)
    (folder / "weighty.py").write_text(CODE)
    with pytest.raises(ConfigurationError, match=r"takes other arguments.*missing.*weights"):
        WORKLOAD.build(own(folder, weights=None), CLASSES)


def test_a_change_while_a_run_is_under_way_ends_it(folder: Path) -> None:
    config, workspace = own(folder), Workspace()
    workspace.check_own_files(config)
    workspace.check_own_files(config)
    (folder / "units.json").write_text("5")
    with pytest.raises(ConfigurationError, match=r"units\.json changed while the run was under way"):
        workspace.check_own_files(config)


def test_weights_at_a_uri_are_fetched_once_and_held_against_their_digest(
    folder: Path, weighed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = (weighed / "four.weights.h5").read_bytes()
    digest, asked = hashlib.sha256(data).hexdigest(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/a/w.weights.h5" else 500 if "broken" in self.path else 404)
            self.end_headers()
            if self.path == "/a/w.weights.h5":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    def given(uri: str, sha256: str = digest) -> Pipeline:
        return own(folder, weights={"uri": uri, "sha256": sha256})

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        config = given(f"{here}/a/w.weights.h5")
        for _ in range(2):
            model = WORKLOAD.build(config, CLASSES)
        assert asked == ["/a/w.weights.h5"] and (np.asarray(model.layers[0].layers[-1].kernel) == 0.25).all()
        for wrong, told in (
            (given(f"{here}/a/w.weights.h5", "0" * 64), rf"is another file.*{'0' * 64}.*{digest}"),
            (given(f"{here}/gone.h5", "1" * 64), "no file at.*404"),
        ):
            with pytest.raises(ConfigurationError, match=told):
                user_weights.path(wrong)
        with pytest.raises(StoreUnreachable, match=r"cannot be fetched.*500"):
            user_weights.path(given(f"{here}/broken.h5", "2" * 64))
        server.shutdown()
    with pytest.raises(StoreUnreachable, match="cannot be fetched"):
        user_weights.path(given(f"{here}/down.h5", "3" * 64))
    with pytest.raises(StoreUnreachable, match="cannot be fetched"):
        user_weights.path(given("http://127.0.0.1:none/w.h5", "3" * 64))
    packed = model_sources.archive(config)
    with model_sources.unpacked(packed, config) as again:
        assert user_weights.path(again) == again.folder / "fetched-weights" / "w.weights.h5"
    local = given((weighed / "four.weights.h5").as_uri())
    assert user_weights.path(local) == weighed / "four.weights.h5"
    with pytest.raises(ConfigurationError, match="no file at file://"):
        user_weights.path(given((weighed / "none.h5").as_uri()))
    (tmp_path / "cache" / "leptonflow" / digest / "w.weights.h5").write_bytes(b"damaged")
    with pytest.raises(StoreUnreachable):
        user_weights.path(config)
