"""What a configuration names is a regular file in its folder: no link out of it, no pipe, no device, no folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from leptonflow.core import code_digests, files, pipeline_files
from leptonflow.data.validation import contracts
from schemas.config import Pipeline
from schemas.errors import ConfigurationError
from tests.fit_examples import pipeline

CONTRACT = "expectations:\n  - type: expect_table_row_count_to_be_between\n    kwargs: {min_value: 1}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a YAML, with links out of it, a pipe, a device and a socket beside it."""
    inside, outside = tmp_path / "p", tmp_path / "elsewhere"
    for each in (inside, outside, inside / "deeper", outside / "package"):
        each.mkdir()
    for each in (inside / "deeper" / "c.yaml", outside / "c.yaml"):
        each.write_text(CONTRACT)
    (outside / "package" / "__init__.py").write_text("def build(input_shape, classes): ...\n")
    (inside / "link.yaml").symlink_to(outside / "c.yaml")
    (inside / "within.yaml").symlink_to("deeper/c.yaml")
    (inside / "device.yaml").symlink_to("/dev/zero")
    (inside / "folder.yaml").mkdir()
    os.mkfifo(inside / "pipe.yaml")
    (inside / "large.yaml").write_bytes(b" " * (files.TEXT + 1))
    return inside


def own(folder: Path, **keys: object) -> Pipeline:
    return pipeline(folder=folder, **keys)


@pytest.mark.parametrize("name", ["deeper/c.yaml", "within.yaml", "./deeper/../within.yaml"])
def test_a_file_in_the_folder_is_read(folder: Path, name: str) -> None:
    assert contracts.read_contract(own(folder, contract=name))["expectations"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("link.yaml", "outside of the folder"), ("../elsewhere/c.yaml", "outside of the folder"),
        ("/etc/passwd", "outside of the folder"), ("device.yaml", "outside of the folder"),
        ("pipe.yaml", "a named pipe"), ("folder.yaml", "a folder"), ("gone.yaml", "No such file"),
        ("large.yaml", "larger than"), (".", "a folder"), ("c\0.yaml", "no file"),
    ],
)  # fmt: skip
def test_a_contract_is_a_file_in_the_folder(folder: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        contracts.read_contract(own(folder, contract=name))
    assert "contract" in caught.value.message


def test_the_code_of_a_model_function_is_files_in_the_folder(folder: Path) -> None:
    (folder / "mine.py").write_text("")
    assert set(code_digests.user_code(own(folder, model={"function": "mine:build"}))) == {"mine.py"}
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    config = own(folder, model={"function": "pack:build"})
    assert set(code_digests.user_code(config)) == {"pack/__init__.py"}
    (folder / "pack" / "sub").symlink_to(folder.parent / "elsewhere" / "package")
    with pytest.raises(ConfigurationError, match=r"pack/sub.*a link to a folder"):
        code_digests.user_code(config)
    (folder / "package").symlink_to(folder.parent / "elsewhere" / "package")
    with pytest.raises(ConfigurationError, match=r"package.*a link to a folder"):
        code_digests.user_code(own(folder, model={"function": "package:build"}))
    (folder / "linked.py").symlink_to(folder.parent / "elsewhere" / "package" / "__init__.py")
    with pytest.raises(ConfigurationError, match=r"linked\.py.*outside of the folder"):
        code_digests.user_code(own(folder, model={"function": "linked:build"}))
    (folder / "linked.py").unlink()
    os.mkfifo(folder / "pipe.py")
    with pytest.raises(ConfigurationError, match=r"pipe\.py.*a named pipe"):
        code_digests.user_code(own(folder, model={"function": "mine:build"}))


def test_a_package_that_is_installed_stays_possible(folder: Path) -> None:
    assert code_digests.user_code(own(folder, model={"function": "yaml:load"}))


def test_a_pipeline_is_a_file(folder: Path) -> None:
    for name, told in (("pipe.yaml", "a named pipe"), ("device.yaml", "a device"), ("folder.yaml", "a folder")):
        with pytest.raises(ConfigurationError, match=told):
            pipeline_files.load_config(str(folder / name))


def test_a_socket_and_what_became_a_pipe_are_no_files(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # its path may be longer than a socket's name
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        with pytest.raises(OSError, match="a socket"):
            files.read(folder / "socket", 10)
