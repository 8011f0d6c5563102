"""The one table of what `up` starts: each service's command, environment, and how it is known to be healthy.

What does not belong here: starting and ending them (supervisor).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flows import addresses, credentials, environment, server, wanted_deployments
from flows.stack import place, processes, s3, tether
from flows.stack.prefect_server import ANSWER_SECONDS, PrefectServer
from flows.stack.supervisor import Service
from leptonflow.core.child_processes import python_path
from leptonflow.core.pipeline_files import PIPELINES, available, load_config
from schemas.arrivals import FLOW, POOL
from schemas.config import Pipeline
from schemas.errors import UsageError

NO_PIPELINES = "none under pipelines/: `leptonflow init NAME` writes one there"
SAVE_SECONDS = 1.5  # in which the fits may save themselves: the worker has CLIENT_SECONDS to end (supervisor)
# The programs of our own that `up` runs: a module and its arguments.
PROGRAMS: dict[str, tuple[str, ...]] = {
    "bucket": ("flows.stack.s3",),
    "board": ("cli.main", "board"),
    "serve": ("cli.main", "serve"),  # in the board's place where there are pipelines: it has the same pages
    "deploy": ("cli.main", "deploy"),
    "worker": ("flows.stack.worker", str(SAVE_SECONDS)),
    "watcher": ("cli.main", "watch"),
}


@dataclass(frozen=True)
class Plan:
    """What one `up` starts."""

    folder: Path  # place.FOLDER, absolute
    store: str
    pipelines: Sequence[str]
    prefect: PrefectServer
    s3: s3.Server | None
    webhook: Mapping[str, str]  # what the watcher's receiver of notifications is told; empty without MinIO
    board: int  # the port of the board
    tether: int  # the read end of the pipe that ends the children with `up`


def pipelines(folder: Path = PIPELINES) -> list[str]:
    """The names of the pipelines' YAMLs in this folder; contracts lie beside them."""
    return list(available(folder))


class Served:
    """The pipelines of this folder that `serve` is started with, as long as their YAMLs say the same.

    A mistake in one takes neither the board away nor the predictions of the others, and `deploy` tells of it.
    """

    def __init__(self) -> None:
        self._files: object = None
        self._pipelines: dict[str, Pipeline] = {}

    def now(self) -> dict[str, Pipeline]:
        """Those whose YAML can be read; while one that is served cannot, those that are served."""
        files = configuration()
        if files != self._files:
            self._files = files
            with suppress(UsageError):
                there = pipelines()
                found = _readable(there)
                if not any(name in there and name not in found for name in self._pipelines):
                    self._pipelines = found
        return self._pipelines

    def program(self) -> list[str]:
        """The program that shows the pages, and the pipelines that it serves too."""
        self._pipelines = _readable(self._pipelines)
        return ["serve", *self._pipelines] if self._pipelines else ["board"]


def _readable(names: Iterable[str]) -> dict[str, Pipeline]:
    found = {}
    for name in names:
        with suppress(UsageError):
            found[name] = load_config(name)
    return found


def deployments(names: Sequence[str], folder: Path) -> str:
    """The deployments that `deploy` registers for the folder, in one line; of what it refuses, the retrainings."""
    found: list[str] = []
    with suppress(UsageError):
        found = [f"{each.flow}/{each.name}" for each in wanted_deployments.read(folder, {})]
    return ", ".join(found or [f"{FLOW}/{name}" for name in names]) or NO_PIPELINES


def configuration() -> object:
    """What this folder's files say to `deploy`, as far as the times and sizes of the files tell."""
    found = []
    try:
        files = list(available(PIPELINES).values())
    except UsageError as error:  # as `deploy` says it
        return error.message
    for file in [*files, wanted_deployments.FILE]:
        with suppress(OSError):
            stat = file.stat()
            found.append((str(file), stat.st_mtime_ns, stat.st_size))
    return sorted(found)


def services(plan: Plan, programs: Mapping[str, Sequence[str]] = PROGRAMS) -> list[Service]:
    """The services in the order in which a person reads about them."""
    variables = child_environment(plan)

    def program(name: str, *arguments: str, log: str | None = None) -> Callable[[], subprocess.Popen[bytes]]:
        command = [sys.executable, "-P", "-m", "flows.stack.tether", *programs[name], *arguments]
        return lambda: spawn(command, variables, place.log(plan.folder, log or name), tethers=(plan.tether,))

    def table(name: str, needs: tuple[str, ...], **others: Any) -> Service:
        return Service(name, place.log(plan.folder, name), needs=needs, **others)

    prefect = plan.prefect
    found = [
        table(
            "prefect", (), spawn=prefect.spawn, healthy=prefect.healthy, stop=prefect.stop, shared=prefect.shared,
            server=True, url=prefect.url, line=lambda pid: f"Prefect {prefect.url}",
        )
    ]  # fmt: skip
    stored: tuple[str, ...] = ()
    if plan.s3 is not None:
        stored = ("bucket",)
        bucket = plan.store if plan.store.startswith("s3://") else f"s3://{s3.BUCKET}"
        found += [_s3(plan, plan.s3), table("bucket", ("s3",), spawn=program("bucket", bucket), once=True)]
    board, port, served = board_address(plan), ("--port", str(plan.board)), Served()
    found.append(
        table(
            "board", stored, spawn=lambda: program(*served.program(), *port, log="board")(), url=board,
            depends=served.now,
            line=lambda pid: f"Board {board}" + (f", predictions {board}/v1" if served.now() else ""),
            healthy=lambda since: addresses.answers(f"{board}/healthz", ANSWER_SECONDS),
        )
    )  # fmt: skip
    found.append(
        table(
            "deploy",
            (),
            beside=("prefect",),
            spawn=program("deploy"),
            once=True,
            depends=configuration,
            line=lambda pid: f"Deployments {deployments(plan.pipelines, Path.cwd())}",
        )
    )
    found.append(
        table(
            "worker", stored, beside=("prefect",), spawn=program("worker"),
            healthy=lambda since: online(prefect.api, prefect.login, since),
            line=lambda pid: f"Worker process {pid}, work pool {POOL}",
        )
    )  # fmt: skip
    watcher = Told(place.log(plan.folder, "watcher"), "Watching ")
    found.append(
        table(
            "watcher", (*stored, "deploy"), spawn=watcher.after(program("watcher")),  # its events must find triggers
            healthy=watcher.said, line=lambda pid: f"Watcher process {pid}: {watcher.line}",
        )
    )  # fmt: skip
    return found


def board_address(plan: Plan) -> str:
    """Of the pages of this stack's store."""
    return f"http://127.0.0.1:{plan.board}"


def _s3(plan: Plan, chosen: s3.Server) -> Service:
    log = place.log(plan.folder, "s3")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MINIO_", "WEED_", "S3_"))}
    variables = {**kept, **chosen.environment, **environment.no_proxy(kept)}
    return Service(
        "s3",
        log,
        spawn=lambda: spawn(list(chosen.command), variables, log, cwd=chosen.folder),
        healthy=lambda since: addresses.answers(chosen.health, ANSWER_SECONDS),
        line=lambda pid: f"S3 {chosen.endpoint} ({chosen.name}); in another terminal: . {place.FOLDER}/s3.env",
        url=chosen.endpoint,
        server=True,
    )


def child_environment(plan: Plan) -> dict[str, str]:
    """What our own programs are told: where the API, the store and the S3 server are."""
    folder = (Path.cwd() / server.FOLDER).absolute()
    changed = server.for_client(server.ApiHandle(plan.prefect.api, folder, login=plan.prefect.login))
    variables = {name: value for name, value in os.environ.items() if name not in changed}
    variables |= {name: value for name, value in changed.items() if value is not None}
    if plan.s3 is not None:
        variables.pop("AWS_SESSION_TOKEN", None)
        variables |= plan.s3.client
    variables |= plan.webhook
    variables |= {"LEPTONFLOW_STORE": plan.store, tether.NAME: str(plan.tether)}
    variables.setdefault("LEPTONFLOW_BOARD_URL", board_address(plan))
    if variables.get("PREFECT_LOGGING_LEVEL", "ERROR") == "ERROR":  # a command's own default: runs tell more
        variables["PREFECT_LOGGING_LEVEL"] = "INFO"
    variables["PYTHONUNBUFFERED"] = "1"  # `logs --follow` shows a line when it is written
    variables["PYTHONPATH"] = python_path()
    return variables


def spawn(
    command: list[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None, tethers: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """A child in a session of its own (Ctrl-C is for `up`), its output in the log; it ends with `up`, kill -9 included.

    By the tether that it inherits where it is ours, else by the kernel (Linux).
    """
    with log.open("ab") as sink:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            pass_fds=tethers,
            start_new_session=True,
            preexec_fn=None if tethers else processes.die_with_parent,
        )


# --- health --------------------------------------------------------------------------------------


def online(api: str, login: str, since: float) -> bool:
    """Whether a worker of the pool reported after `since`."""
    url = f"{api}/work_pools/{POOL}/workers/filter"
    try:
        answer = addresses.request("POST", url, ANSWER_SECONDS, credentials.headers(url, login), {})
        workers = answer.json() if answer.is_success else []
    except (OSError, ValueError):
        return False
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() for worker in workers]
    return any(beat >= since for beat in beats)


class Told:
    """A service that writes a line with this beginning when it is healthy; `line` is the last one."""

    def __init__(self, log: Path, beginning: str) -> None:
        self._log = log
        self._beginning = beginning
        self._from = 0
        self.line = ""

    def after(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> Callable[[], subprocess.Popen[bytes]]:
        """The same start; what was in the log before it does not count."""

        def start() -> subprocess.Popen[bytes]:
            self._from = self._log.stat().st_size if self._log.exists() else 0
            return spawn()

        return start

    def said(self, since: float) -> bool:
        """Whether the process of the last start wrote the line."""
        with self._log.open("rb") as file:
            file.seek(self._from)
            lines = [line for line in file.read().decode(errors="replace").splitlines(True) if line.endswith("\n")]
        told = [line.strip() for line in lines if line.startswith(self._beginning)]
        self.line = told[-1] if told else self.line
        return bool(told)
