"""`deployments/compose.yaml` read as Docker Compose reads it, and its services run as plain processes of this machine.

`document` fills in the variables; `Stack` starts what a service would run, with the service's own command, environment
and health check, in one folder instead of a container: a host of the compose network becomes 127.0.0.1 and its port a
free one. What stays out of sight: images, users, networks and volumes. What does not belong here: pytest.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.postgres import Database
from tests.prefect_servers import plain_environment
from tests.servers import LOOPBACK, free_ports, weed_binary

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deployments"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
Document = dict[str, Any]


class Missing(RuntimeError):
    """A variable that compose.yaml requires is not set."""


def example() -> dict[str, str]:
    """.env.example as a dictionary; what is to be filled in is empty."""
    lines = (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def document(environment: Mapping[str, str]) -> Document:
    """compose.yaml with its variables filled in. Raises Missing for a required one that is unset or empty."""

    def value(found: re.Match[str]) -> str:
        given = environment.get(found["name"], "")
        if not given and found["kind"] == "?":
            raise Missing(f"{found['name']} {found['rest']}")
        return given or found["rest"] or ""

    loaded = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(each) for key, each in node.items()}
        if isinstance(node, list):
            return [filled(each) for each in node]
        return VARIABLE.sub(value, node).replace("$$", "$") if isinstance(node, str) else node

    return dict(filled(loaded))


def words(command: str | list[str]) -> list[str]:
    """A command as a list, split as Compose splits a string."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


class Stack:
    """The services that a test has started. `close` ends them all.

    home: what an image has in /srv/leptonflow, and is not written to; folder: for everything that is written;
    programs: where python, prefect and leptonflow are.
    """

    def __init__(
        self, home: Path, folder: Path, environment: Mapping[str, str], database: Database, programs: Path
    ) -> None:
        self.home = home
        self.folder = folder
        self.services: Document = document(environment)["services"]
        self.logs: dict[str, Path] = {}
        self._programs = programs
        self._database = database
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(zip(("s3", "redis", "server", "serve", "board"), free_ports(5), strict=True))

    @property
    def api(self) -> str:
        """The Prefect server as this machine reaches it."""
        return f"http://{LOOPBACK}:{self._ports['server']}/api"

    @property
    def s3(self) -> str:
        """The S3 server's endpoint."""
        return f"http://{LOOPBACK}:{self._ports['s3']}"

    def url(self, name: str) -> str:
        """A service as this machine reaches it."""
        return f"http://{LOOPBACK}:{self._ports[name]}"

    def start(self, name: str) -> None:
        """Start a service, as its image would; what an image brings beside the command is added here."""
        arguments = [self._here(word) for word in words(self.services[name]["command"])]
        if name == "s3":
            arguments = [str(weed_binary()), *arguments, *self._only_this_machine()]
        if name == "redis":
            arguments += ["--bind", LOOPBACK, "--port", str(self._ports["redis"]), "--dir", str(self.folder)]
        (self.folder / "data").mkdir(exist_ok=True)
        log = self.logs[name] = self.folder / f"{name}.log"
        with log.open("wb") as sink:
            self._children[name] = subprocess.Popen(
                arguments, cwd=self.home, env=self._environment(name), stdin=subprocess.DEVNULL, stdout=sink,
                stderr=sink, start_new_session=True,
            )  # fmt: skip

    def _only_this_machine(self) -> list[str]:
        """SeaweedFS's other ports and its sockets, which a container has to itself."""
        ports = free_ports(7)
        roles = ["master", "volume", "filer", "s3"]
        flags = [f"-{role}.port={port}" for role, port in zip(roles[:3], ports[:3], strict=True)]
        flags += [f"-{role}.port.grpc={port}" for role, port in zip(roles, ports[3:], strict=True)]
        return [*flags, *(f"-{role}.localSocket={self.folder / role}.sock" for role in ("s3", "filer"))]

    def run(self, name: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A further command in a service's folder and environment, as `docker compose run` gives it."""
        return subprocess.run(
            list(command), cwd=self.home, env={**self._environment(name), **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    def ended(self, name: str, seconds: float = 120) -> int:
        """The exit status of a service that ends by itself."""
        return self._children[name].wait(seconds)

    def healthy(self, name: str, seconds: float = 120) -> None:
        """Wait until the service's own health check passes."""
        (kind, *check) = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD", check
        deadline = time.monotonic() + seconds
        while True:
            assert self._children[name].poll() is None, f"{name} has ended:\n{self.said(name)}"
            done = subprocess.run(
                [self._here(word) for word in check],
                cwd=self.home, env=self._environment(name), capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{name} is not healthy: {done.stderr}\n{self.said(name)}"
            time.sleep(0.2)  # between two looks at the same condition

    def said(self, name: str) -> str:
        """The end of a service's log."""
        return self.logs[name].read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End every service, the last started first."""
        for child in reversed(list(self._children.values())):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(30)
            try:
                os.killpg(child.pid, signal.SIGKILL)  # whatever it has left
            except ProcessLookupError:
                continue
            child.wait(10)

    def _environment(self, name: str) -> dict[str, str]:
        said = {key: self._here(str(value)) for key, value in (self.services[name].get("environment") or {}).items()}
        for key, value in (("HOST", LOOPBACK), ("PORT", str(self._database.port)), ("USER", self._database.user),
                           ("NAME", self._database.name), ("PASSWORD", self._database.password)):  # fmt: skip
            if f"PREFECT_SERVER_DATABASE_{key}" in said:
                said[f"PREFECT_SERVER_DATABASE_{key}"] = value
        home = self.folder / "tmp" / name
        home.mkdir(parents=True, exist_ok=True)
        ours = {"HOME": home, "PREFECT_HOME": home / "prefect", "PREFECT_UI_STATIC_DIRECTORY": home / "ui"}
        path = os.pathsep.join([str(self._programs), os.environ.get("PATH", os.defpath)])
        return {**plain_environment(), **{k: str(v) for k, v in ours.items()}, "PATH": path, **said}

    def _here(self, text: str) -> str:
        """A word of the compose network in the terms of this machine."""
        for host, port in {"s3": 8333, "redis": 6379, "server": 4200, "serve": 8080, "board": 8090}.items():
            text = re.sub(rf"\b(?:{host}|{LOOPBACK}):{port}\b", f"{LOOPBACK}:{self._ports[host]}", text)
            text = re.sub(rf"^(-s3\.port=|){port}$", rf"\g<1>{self._ports[host]}", text)
        text = re.sub(r"^(-ip=|)(s3|redis)$", rf"\g<1>{LOOPBACK}", text)
        return text.replace("0.0.0.0", LOOPBACK).replace("=/data", f"={self.folder / 'data'}")
