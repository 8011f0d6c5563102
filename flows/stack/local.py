"""One local stack from its start to its end: the folder's lock, the ports, the plan, the children.

What does not belong here: the command line, and how a service is started (services) or kept (supervisor).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from flows import addresses, credentials, reports, server
from flows.stack import place, ports, processes, s3, services, tether
from flows.stack.prefect_server import PrefectServer, await_leaving
from flows.stack.supervisor import Supervisor
from flows.wake_signals import Stop
from leptonflow.core import progress
from schemas.errors import LeptonflowError
from schemas.settings import store_uri

PREFECT_PORT = 4200
BOARD_PORT = 4240
WEBHOOK_PORT = 4280
LOGIN = "login"


@dataclass(frozen=True)
class Voice:
    """Where messages go: `say` prints a line about each service, `note` anything else a person should know."""

    say: Callable[[str], None]
    note: Callable[[str], None]


def run(
    store: str | None,
    with_s3: bool,
    voice: Voice,
    ready: Callable[[], None] = lambda: None,
    programs: Mapping[str, Sequence[str]] = services.PROGRAMS,
) -> None:
    """Start the stack in the current folder and keep it until SIGINT, SIGTERM or SIGHUP.

    `ready` is called when all is healthy. Raises LeptonflowError where a stack runs here already, or a
    service cannot be started; nothing is left then.
    """
    began = time.monotonic()
    kind = s3.choose(s3.DATA.absolute()) if with_s3 else None
    given = store or os.environ.get("LEPTONFLOW_STORE")
    uri = store_uri(given or (f"s3://{s3.BUCKET}" if with_s3 else None))
    folder = place.open_folder(place.FOLDER.absolute())
    with ExitStack() as stack:
        stack.callback(os.close, place.claim(folder))
        stack.enter_context(progress.listen(to_note=voice.note))
        stop = stack.enter_context(Stop().listening())
        place.set_logs_aside(folder)
        processes.adopt_orphans()
        configured = addresses.configured()
        if configured is not None:
            shown = addresses.without_credentials(configured)
            voice.note(f"the Prefect server {shown} is configured, but this stack uses its own")
        await_leaving(server.FOLDER.absolute())
        listener = stack.enter_context(closing(ports.listen(PREFECT_PORT, "Prefect", voice.note)))
        login, about_login = choose_login(folder)
        prefect = PrefectServer(server.FOLDER.absolute(), listener, place.log(folder, "prefect"), login, voice.note)
        ends = tether.create()
        for each in ends:
            stack.callback(os.close, each)
        chosen, webhook = _s3(folder, kind, uri, voice) if kind else (None, {})
        prefect.environment = {reports.STORE: uri, **(chosen.client if chosen is not None else {})}
        board = ports.choose(BOARD_PORT, "the board", voice.note)
        plan = services.Plan(folder, uri, services.pipelines(), prefect, chosen, webhook, board, ends[0])
        state = State(folder)
        stack.callback(state.remove)

        def say(line: str) -> None:
            state.lines.append(line)
            voice.say(line)

        def healthy() -> None:
            state.ready = True
            voice.say(about_login)  # not kept: stack.json is no place for a password
            seconds = time.monotonic() - began
            say(f"Ready in {seconds:.1f} s; `leptonflow logs` shows the logs, Ctrl-C or `leptonflow down` stops it")
            state.write()
            ready()

        supervisor = Supervisor(services.services(plan, programs), stop, say, voice.note, state.update)
        try:
            supervisor.run(healthy)
        finally:
            _end(supervisor, prefect, voice)


def _end(supervisor: Supervisor, prefect: PrefectServer, voice: Voice) -> None:
    """Stop every service but a Prefect server that another command uses."""
    began = time.monotonic()
    supervisor.end()
    users = prefect.others()
    if users:
        voice.note(f"the Prefect server runs until {users} has ended")
    voice.note(f"stopped everything{' else' if users else ''} in {time.monotonic() - began:.1f} s")


def choose_login(folder: Path) -> tuple[str, str]:
    """(login of the Prefect server, the line about it): the person's own, else the folder's, which is shown once."""
    again = "`leptonflow up --show-login` shows it"
    own = credentials.own()
    if own is not None:
        return own, f"Login as set in PREFECT_SERVER_API_AUTH_STRING; {again}"
    kept = folder / LOGIN
    if kept.exists():
        return credentials.usable(place.secret(kept), str(kept)), f"Login as before; {again}"
    login = place.secret(kept, credentials.new())
    return login, f"Login {login} (all of it is the UI's password); {again} again"


def shown_login() -> str:
    """The login of this folder's Prefect server. Raises LeptonflowError where there never was one."""
    folder = server.FOLDER.absolute()
    url = server.full_server(folder)
    kept = place.FOLDER / LOGIN
    found = server.login(url, folder) if url is not None else None
    if found is None and kept.exists():
        found = place.secret(kept)
    if found is None:
        raise LeptonflowError(
            "this folder has no Prefect server with a login yet",
            expected="a folder in which `leptonflow up` has started",
            received=str(Path.cwd()),
            hint="Start `leptonflow up` here",
        )
    return found


@dataclass
class State:
    """What stack.json tells of this stack."""

    folder: Path
    ready: bool = False

    def __post_init__(self) -> None:
        self.lines: list[str] = []
        self._services: dict[str, dict[str, object]] = {}
        self.write()

    def update(self, services: dict[str, dict[str, object]]) -> None:
        self._services = services
        self.write()

    def write(self) -> None:
        place.publish(
            self.folder,
            {"pid": os.getpid(), "ready": self.ready, "lines": self.lines, "services": self._services},
        )

    def remove(self) -> None:
        (self.folder / "stack.json").unlink(missing_ok=True)


def _s3(folder: Path, kind: tuple[str, str], store: str, voice: Voice) -> tuple[s3.Server, dict[str, str]]:
    """The S3 server to start, and what the watcher's receiver of notifications is told."""
    data = s3.DATA.absolute()
    webhook: dict[str, str] = {}
    notify: dict[str, str] = {}
    if kind[0] == "minio":
        port = ports.choose(WEBHOOK_PORT, "the receiver of MinIO's notifications", voice.note)
        token = place.secret(folder / "webhook.token")
        webhook = {"LEPTONFLOW_WEBHOOK_PORT": str(port), "LEPTONFLOW_WEBHOOK_TOKEN": token}
        notify = s3.notifications(data, port, token)
    chosen = s3.server(*kind, data, folder, ports.choose(s3.PORT, "S3", voice.note), notify)
    place.write(folder / "s3.env", s3.exports({**chosen.client, "LEPTONFLOW_STORE": store}))
    return chosen, webhook
