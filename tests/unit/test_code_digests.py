"""Which code counts in which digest: every file of the tree is changed by one byte, in memory."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from leptonflow.core import code_digests
from leptonflow.core.code_digests import ROOT
from tests.fit_examples import pipeline

PACKAGES = ("leptonflow", "schemas", "serving", "tasks", "flows", "cli")
WORKLOAD = "leptonflow/workloads/image_classification/"
# The first digest that a file belongs to; each later one holds it too.
STARTS = {
    "leptonflow/data/dataset/": "data",
    "leptonflow/data/validation/": "data",
    "leptonflow/workloads/base.py": "data",
    "leptonflow/workloads/media/image/": "data",
    f"{WORKLOAD}examples.py": "data",
    "leptonflow/training/": "train",
    "leptonflow/keras_runtime/": "train",
    "leptonflow/workloads/predictions.py": "train",
    "leptonflow/workloads/user_model.py": "train",
    "leptonflow/workloads/user_weights.py": "train",
    "leptonflow/workloads/classification.py": "train",
    f"{WORKLOAD}model.py": "train",
    f"{WORKLOAD}cnn.py": "train",
    f"{WORKLOAD}resnet.py": "train",
    f"{WORKLOAD}augmentation.py": "train",
    "leptonflow/evaluation/": "gate",
    "leptonflow/gate/": "gate",
    "leptonflow/statistics/": "gate",
    "leptonflow/registry/package_builder.py": "gate",
    "leptonflow/registry/packages.py": "gate",
    "leptonflow/registry/model_sources.py": "gate",
    "leptonflow/registry/onnx_export.py": "gate",
    "leptonflow/registry/onnx_session.py": "gate",
    "leptonflow/registry/latency.py": "gate",
    "leptonflow/registry/onnx_files.py": "gate",
    "leptonflow/registry/intact_champions.py": "gate",
    "leptonflow/registry/proven_champions.py": "gate",
    f"{WORKLOAD}scoring.py": "gate",
    f"{WORKLOAD}baselines.py": "gate",
}
ORDER = ("data", "train", "gate")
# In no digest: shown in a report alone or written for a later batch, and where a fit is computed.
NOT_COUNTED = (
    "leptonflow/workloads/media/image/thumbnail.py", "leptonflow/workloads/media/image/png.py",
    "leptonflow/training/runners/",
)  # fmt: skip


def expected(name: str) -> set[str]:
    if name.startswith(NOT_COUNTED):
        return set()
    first = next((digest for start, digest in STARTS.items() if name.startswith(start)), None)
    return set() if first is None else set(ORDER[ORDER.index(first) :])


def test_one_changed_byte_changes_the_digests_of_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    config, own = pipeline(), lru_cache(maxsize=None)(code_digests._file)
    changed = [Path()]
    monkeypatch.setattr(code_digests, "_file", lambda path: f"{own(path)}{path == changed[0] or ''}")
    before = code_digests.code_digests(config)
    files = [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"  # a docstring
    ]
    assert len(files) > 200 and all(any(f.as_posix().endswith(start) or f"/{start}" in f.as_posix() for f in files)
                                    for start in STARTS)  # fmt: skip
    wrong = {}
    for path in files:
        changed[0] = path
        after, name = code_digests.code_digests(config), path.relative_to(ROOT).as_posix()
        found = {digest for digest in ORDER if after[digest] != before[digest]}
        if found != expected(name):
            wrong[name] = found
    assert not wrong


def test_the_digests_of_a_user_s_model_hold_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def build(shape, classes): ...\n")
    config = pipeline(model={"function": "own:build"}, folder=tmp_path)
    before = code_digests.code_digests(config)
    (tmp_path / "own.py").write_text("def build(shape, classes):  ...\n")
    after = code_digests.code_digests(config)
    assert {digest for digest in ORDER if after[digest] != before[digest]} == {"train", "gate"}


def test_what_a_user_s_model_imports_from_beside_it_is_of_it_too(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def build(shape, classes):\n    from blocks.dense import units\n")
    for name, text in {"blocks/dense.py": "import tables", "blocks/deep/more.py": "", "tables/__init__.py": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").mkdir()  # such as weights of its own
    (tmp_path / "unrelated").mkdir()
    (tmp_path / "unrelated" / "tool.py").write_text("")
    config = pipeline(model={"function": "own:build"}, folder=tmp_path)
    assert [*sorted(code_digests.user_code(config))] == [
        "blocks/deep/more.py", "blocks/dense.py", "own.py", "tables/__init__.py"
    ]  # fmt: skip
