"""Prefect ignores a setting that it does not know: each that our code and files name is held against its own."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import prefect.settings
import pytest
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH, load_logging_config
from prefect.settings import sources

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"PREFECT_[A-Z0-9_]+")
PROFILE = "PREFECT_PROFILE"  # names the profile that the settings are read from, and is none itself
LOGGING = ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL")  # keys of its logging.yml
FILES = ("Makefile", "prefect.yaml", ".ci/setup", ".ci/run")  # those of deployments/: test_deployments_folder


def named(tree: ast.AST) -> Iterator[str]:
    """The names of settings: whole strings, attributes, and what is imported. Prose that speaks of one is none."""
    for node in ast.walk(tree):
        said = (
            node.value if isinstance(node, ast.Constant)
            else node.attr if isinstance(node, ast.Attribute)
            else node.name if isinstance(node, ast.alias)
            else None
        )  # fmt: skip
        if isinstance(said, str) and NAME.fullmatch(said):
            yield said


def said() -> dict[str, set[str]]:
    """Each name, and the files that have it."""
    found: dict[str, set[str]] = {}
    for top in ("benchmarks", "cli", "deployments", "flows", "leptonflow", "schemas", "tasks"):
        for path in (ROOT / top).rglob("*.py"):
            for name in named(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    for file in FILES:
        for name in NAME.findall((ROOT / file).read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(file)
    return found


def test_prefect_knows_every_setting_that_is_named() -> None:
    names = said()
    read = set().union(*names.values())
    assert {"flows/server.py", "flows/stack/worker.py", "schemas/settings.py", "prefect.yaml"} <= read
    # prefect.settings has an attribute for each setting, by its name and by each of its aliases.
    unknown = {name: files for name, files in names.items() if not hasattr(prefect.settings, name)}
    assert set(unknown) == {PROFILE, *LOGGING}


def test_prefect_reads_the_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROFILE in inspect.getsource(sources)
    for name in LOGGING:
        monkeypatch.setenv(name, "OF_" + name)
        assert "OF_" + name in str(load_logging_config(DEFAULT_LOGGING_SETTINGS_PATH))


def test_a_misspelt_one_is_found() -> None:
    tree = ast.parse('ENVIRONMENT = {"PREFECT_SERVER_LOGING_LEVEL": "ERROR"}  # and a message: "set PREFECT_API_URL"')
    assert [name for name in named(tree) if not hasattr(prefect.settings, name)] == ["PREFECT_SERVER_LOGING_LEVEL"]
