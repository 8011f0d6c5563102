"""The command from outside, in this process or in one of its own; a folder to work in, small real images to feed it.

`call` and `command` check what docs/commands.md promises of every command: one JSON
document with --json, one clear line for a failure, never a traceback. What does not belong here: what
a single command should say.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from cli import main
from flows import server

ROOT = Path(__file__).resolve().parents[2]
DROPPED = ("PYTHONDONTWRITEBYTECODE", "LEPTONFLOW_STORE", "PREFECT_API_URL")  # of a command's environment
SHOWN = {0, 3, 4}  # the exit statuses that print a document; 1 and 2 print an error

YAML: dict[str, Any] = {
    "name": "small",
    "workload": "image_classification",
    "input": [8, 8, 1],
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.1}],
    "serving": {"onnx": False},  # two seconds of each package, and the subject of other tests
}


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status and both outputs."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str | None]:
        """The error's four keys."""
        found = self.document["error"]
        assert set(found) == {"message", "expected", "received", "hint"}
        return dict(found)

    def told(self) -> str:
        """Everything that a person or a program gets to see of it."""
        return self.out + self.err


def call(*arguments: object) -> Result:
    """The command in this process."""
    out, err = io.StringIO(), io.StringIO()
    given = [str(a) for a in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main(given)
    return checked(given, Result(status, out.getvalue(), err.getvalue()))


def command(*arguments: object, cwd: Path, **how: Any) -> Result:
    """The command in a process of its own."""
    given = [str(a) for a in arguments]
    process = start(*arguments, cwd=cwd, **how)
    out, err = process.communicate()
    return checked(given, Result(process.returncode, out, err))


def start(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None, prelude: str = "",
    preexec: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:  # fmt: skip
    """The command's process. `prelude`: Python that runs in it before the command."""
    script = f"import sys\nfrom cli import main\n{prelude}\nsys.argv[0] = 'leptonflow'\nmain.run()\n"
    clean = {k: v for k, v in os.environ.items() if k not in DROPPED}
    return subprocess.Popen(
        [sys.executable, "-c", script, *(str(a) for a in arguments)],
        cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=preexec, env={**clean, "PYTHONPATH": str(ROOT), **(environment or {})},
    )  # fmt: skip


LOOP = """
import json, sys
from leptonflow.data.dataset import admission
from tests.e2e import helpers
answers = sys.stdout
with admission.tools():
    for line in sys.stdin:
        found = helpers.call(*json.loads(line))
        print(json.dumps([found.status, found.out, found.err]), file=answers, flush=True)
"""


@contextlib.contextmanager
def commands(cwd: Path, **environment: str) -> Iterator[Callable[..., Result]]:
    """Commands one after another in one process of their own, which imports what is heavy once."""
    clean = {k: v for k, v in os.environ.items() if k not in DROPPED}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", LOOP], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None

    def run(*arguments: object) -> Result:
        print(json.dumps([str(a) for a in arguments]), file=process.stdin, flush=True)
        answer = process.stdout.readline()  # type: ignore[union-attr]
        assert answer, f"leptonflow {arguments} failed a check: see the traceback on standard error"
        return Result(*json.loads(answer))

    with process:
        yield run
        process.stdin.close()


def together(cwd: Path, every: Iterable[list[object]]) -> list[Result]:
    """Several commands at once, each in a process of its own."""
    given = [[str(a) for a in arguments] for arguments in every]
    processes = [start(*arguments, cwd=cwd) for arguments in given]
    ended = [(process.communicate(), process.returncode) for process in processes]
    return [checked(a, Result(status, *told)) for a, (told, status) in zip(given, ended, strict=True)]


def checked(arguments: list[str], result: Result) -> Result:
    """What holds for every command, whatever it was asked."""
    where = f"leptonflow {' '.join(arguments)} -> {result.status}\n{result.out}\n{result.err}"
    assert "Traceback" not in result.told(), where
    if result.status in (1, 2) and not _told_in_its_document(arguments, result):
        lines = [line for line in result.err.splitlines() if line.strip()]
        assert lines and lines[-1].startswith("leptonflow: "), where
        assert "unexpected" not in lines[-1], where  # the last net is for what nobody thought of
        if "--json" in arguments:
            assert set(json.loads(result.out)) == {"error"}, where
            assert result.error["message"], where
    elif "--json" in arguments:
        json.loads(result.out)
    return result


def _told_in_its_document(arguments: list[str], result: Result) -> bool:
    """Whether a failure is what the command's document is about: a check, a file, predictions that are others."""
    if "status" in arguments:
        return "DAMAGED" in result.out or ("--json" in arguments and bool(result.document.get("damage")))
    if "reproduce" not in arguments:
        return "doctor" in arguments or "predict" in arguments or ("verify" in arguments and "damaged" in result.out)
    lines = result.err.splitlines()
    return result.status == 1 and bool(lines) and lines[-1].startswith("leptonflow: not reproduced: run ")


def ingest(*arguments: object) -> tuple[dict[str, Any], Result]:
    """`ingest --json`, its document held against the sum that holds in each case."""
    result = call("ingest", *arguments, "--json")
    assert result.status in SHOWN, result.told()
    document = result.document
    keys = {"batch", "outcome", "arrived", "accepted", "quarantined", "known", "ignored", "snapshot", "reasons"}
    assert keys <= set(document)
    assert document["accepted"] + document["quarantined"] + document["known"] == document["arrived"], document
    assert sum(document["reasons"].values()) == document["quarantined"], document
    assert (result.status == 3) == (document["outcome"] == "refused"), document
    return document, result


def share_server(folder: Path, prefect_folder: Path) -> Path:
    """Let the commands of a folder use the session's embedded Prefect server as their own."""
    (folder / server.FOLDER).parent.mkdir(parents=True)
    (folder / server.FOLDER).symlink_to(prefect_folder)
    return folder


@contextlib.contextmanager
def working_folder(folder: Path, prefect_folder: Path) -> Iterator[Path]:
    """Work in a folder: nothing is configured from outside, and its Prefect server is the session's."""
    before, names = Path.cwd(), ("LEPTONFLOW_STORE", "PREFECT_API_URL")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.chdir(share_server(folder, prefect_folder))
    try:
        yield folder
    finally:
        os.chdir(before)
        os.environ.update(kept)


def rows(store: object, sql: str) -> list[dict[str, Any]]:
    """The answer to a query."""
    result = call("query", sql, "--store", store, "--json")
    assert result.status == 0, result.told()
    return list(result.document)


def quarantined(store: object, batch: str) -> dict[str, str]:
    """source -> rule of a batch's quarantine."""
    found = rows(store, f"select source, rule from quarantine where batch = '{batch}'")
    assert len({row["source"] for row in found}) == len(found)
    return {row["source"]: row["rule"] for row in found}


def pipeline(folder: Path, **keys: Any) -> Path:
    """A pipeline's YAML in a folder; a key that is None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {k: v for k, v in {**YAML, **keys}.items() if v is not None}
    path = folder / f"{document.get('name', 'small')}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def picture(number: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Image.Image:
    """Noise, another picture for each number."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    return Image.fromarray(values, mode)


def good(folder: Path, classes: Iterable[str], each: int, first: int = 0) -> None:
    """`each` good pictures in a folder per class, named by their number."""
    number = first
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(each):
            picture(number).save(folder / name / f"{number:05d}.png")
            number += 1


@functools.cache
def _some_digits() -> Path:
    """600 of them, written once in a process."""
    from pipelines.digits_images import write_digits

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    write_digits(Path(folder) / "digits", 600)
    return Path(folder) / "digits"


def digits(folder: Path, classes: int, each: int, skip: int = 0) -> Path:
    """Handwritten digits, real scans: `each` of the first classes, a folder per class."""
    for name in map(str, range(classes)):
        (folder / name).mkdir(parents=True)
        for file in sorted((_some_digits() / name).glob("*.png"))[skip : skip + each]:
            shutil.copy(file, folder / name)
    return folder


def listing(store: Path) -> dict[str, tuple[int, int]]:
    """Every file of a directory store with its size and time of change."""
    found = [path for path in sorted(store.rglob("*")) if path.is_file()]
    return {str(p.relative_to(store)): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}
