"""The watcher's loop: which pipelines it watches, what wakes it, what it does where store or Prefect server are away.

It keeps nothing on disk: pending batches are on the store, so that a watcher that was killed finds them again.
What does not belong here: what is raised (batch_events), and how it is sent (prefect_api).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from flows import addresses, server
from flows.arrivals.batch_events import Raiser
from flows.arrivals.file_events import Listener
from flows.arrivals.prefect_api import Api
from flows.arrivals.webhook import Receiver
from flows.credentials import CredentialsRefused
from leptonflow.core import store_keys
from leptonflow.core.pipeline_files import PIPELINES, available
from leptonflow.storage.store import Store
from schemas.errors import LeptonflowError, ServerError, StoreError, UsageError

FAR_SECONDS = 60.0  # between two looks where events tell, and the look only finds what they missed
NEAR_SECONDS = 5.0  # where nothing else tells
PATIENCE_SECONDS = 60.0  # for a server that is not there at the start
BACK_OFF_SECONDS = (1.0, 30.0)
EVENT, POLL = "file system event", "poll"


class Watcher:
    """Watches the pipelines' landing folders on one store. `run` in one thread, `stop` from any."""

    def __init__(
        self,
        pipelines: Sequence[str],
        store: Store,
        say: Callable[[str], None],
        *,
        poll: float | None = None,
        port: int | None = None,
        token: str | None = None,
    ) -> None:
        """pipelines: none for all under pipelines/, as they come and go. poll: seconds between two looks, else what
        fits. port: where MinIO's notifications are received, if they are.

        Raises UsageError, ConfigurationError for what cannot be watched.
        """
        self._store, self._say, self._poll = store, say, poll
        self._raisers = {raiser.name: raiser for raiser in (Raiser(given, store, say) for given in pipelines)}
        self._all = not pipelines
        self._wrong: dict[str, str] = {}  # what is said of YAMLs that are not watched
        self._wake = threading.Event()
        self._ending = self._opened = False
        self._hints: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._url = ""
        self._api: Api | None = None
        self._away = 0.0  # the present back-off; 0: the server answers
        self._retry = 0.0
        self._store_problem: str | None = None
        self._deaf = False  # the webhook did not tell of a batch that the poll found
        self._listener = Listener() if store.path("") is not None else None
        self._receiver = self._receive(port, token) if port is not None else None

    def stop(self) -> None:
        """End soon. Whatever is cut off is done by the next watcher."""
        self._ending = True
        self._wake.set()

    def run(self, once: bool = False) -> None:
        """Watch until `stop`; with `once`, raise events for pending batches. Raises what is wrong at the start."""
        self._reach()
        try:
            self._look("there at the start")
            if once:
                self._tell_all()
                return
            self._listen()
            self._tell()
            self._say(self._opening())
            self._opened = True
            self._loop()
        finally:
            if self._listener is not None:
                self._listener.close()
            if self._receiver is not None:
                self._receiver.close()

    # --- one turn after another ----------------------------------------------------------------------

    def _loop(self) -> None:
        # Something may have happened between the first look and the listening.
        how = EVENT if self._listener is not None else None
        looked = time.monotonic()
        while not self._ending:
            try:
                if how is not None:
                    self._look(how)
                    looked = time.monotonic()
                self._look_at(self._take_hints())
                again = self._listen()
                if time.monotonic() >= self._retry:
                    self._tell()
                self._store_problem = None
            except (StoreError, UsageError) as error:
                if error.message != self._store_problem:
                    self._say(f"{error.line()} Trying again")
                self._store_problem, again = error.message, False
                looked = time.monotonic() + NEAR_SECONDS - self._interval()  # then all is looked at
            heard = again or self._wait(looked + self._interval())
            how = EVENT if heard else POLL if time.monotonic() >= looked + self._interval() else None

    def _wait(self, poll: float) -> bool:
        """Until there is something to do; whether the file system said so."""
        raisers = self._raisers.values()
        tell = min((0.0 if raiser.pending else raiser.check for raiser in raisers), default=poll)
        if self._store_problem is None:
            poll = min(poll, max(tell, self._retry))
        seconds = max(0.0, poll - time.monotonic())
        heard = False
        if self._listener is not None:
            heard = self._listener.wait(seconds, self._wake)
        else:
            self._wake.wait(seconds)
        self._wake.clear()  # whoever sets it has said before what for
        return heard

    def _interval(self) -> float:
        if self._poll is not None:
            return self._poll
        if self._listener is not None:
            return FAR_SECONDS if self._listener.problem is None else NEAR_SECONDS
        return FAR_SECONDS if self._receiver is not None and not self._deaf else NEAR_SECONDS

    def _opening(self) -> str:
        means = []
        if self._listener is not None:
            problem = self._listener.problem
            means.append("file system events" if problem is None else f"no file system events: {problem}")
        if self._receiver is not None:
            means.append(f"MinIO's notifications at {self._receiver.address}")
        means.append(f"poll every {self._interval():g} s")
        return f"Watching {', '.join(self._raisers) or 'no pipeline yet'} on {self._store.uri} ({', '.join(means)})"

    # --- the store -----------------------------------------------------------------------------------

    def _look(self, how: str) -> None:
        if self._all:
            self._follow()
        errors: list[LeptonflowError] = []
        for raiser in self._raisers.values():
            try:
                found = raiser.look(how)
            except (StoreError, UsageError) as error:  # a contract that cannot be read is no reason to leave the rest
                errors.append(error)
                continue
            if found and how == POLL and self._receiver is not None:
                self._deaf = True
        if errors:
            raise errors[0]

    def _follow(self) -> None:
        """Watch each YAML under pipelines/; report once which were added, removed or are invalid."""
        try:
            there = list(available(PIPELINES))
        except UsageError as error:
            self._say_wrong("", error)
            return
        for name, raiser in list(self._raisers.items()):
            if raiser.given in there:
                raiser.read_yaml()
            if raiser.given not in there or raiser.renamed:
                del self._raisers[name]
                self._say(f"{name}: no longer watched")
        watched = {raiser.given for raiser in self._raisers.values()}
        self._wrong = {given: said for given, said in self._wrong.items() if given in there}
        for given in there:
            if given in watched:
                continue
            try:
                raiser = Raiser(given, self._store, self._say)
                if raiser.name in self._raisers:
                    raise UsageError(f"{given}.yaml names the pipeline {raiser.name}, which another YAML names too")
            except UsageError as error:
                self._say_wrong(given, error)
                continue
            self._wrong.pop(given, None)
            self._raisers[raiser.name] = raiser
            if self._opened:
                self._say(f"{raiser.name}: now watched")

    def _say_wrong(self, given: str, error: UsageError) -> None:
        """What keeps a YAML from being watched, once."""
        if self._wrong.get(given) != error.line():
            self._say(f"{error.line()} Until then it is not watched")
        self._wrong[given] = error.line()

    def _look_at(self, hints: set[tuple[str, str]]) -> None:
        for name, raiser in self._raisers.items():
            batches = {batch for pipeline, batch in hints if pipeline == name}
            if batches:
                raiser.look("notification", batches)

    def _listen(self) -> bool:
        """Listen to what there is now; whether that calls for another look."""
        if self._listener is None:
            return False
        before, landings, batches = self._listener.problem, [PIPELINES.absolute()] if self._all else [], []
        for name, raiser in self._raisers.items():
            folder = self._store.path(store_keys.landing_folder(name))
            if folder is not None:
                landings.append(folder)
                batches += [folder / batch for batch in raiser.arrivals.open]
        changed = self._listener.listen(landings, batches)
        problem = self._listener.problem
        if problem != before and problem is not None:
            self._say(f"no file system events ({problem}): looking every {self._interval():g} s")
        return changed

    def _receive(self, port: int, token: str | None) -> Receiver:
        from leptonflow.storage.object_store import ObjectStore

        if not isinstance(self._store, ObjectStore):
            raise UsageError(
                "only a store on MinIO sends notifications to a webhook",
                expected="s3://bucket/prefix",
                received=self._store.uri,
                hint="On a directory the watcher uses the file system's events",
            )
        prefix = f"{self._store.prefix}/" if self._store.prefix else ""
        return Receiver(port, token, self._store.bucket, prefix, self._hint, self._say)

    def _hint(self, pipeline: str, batch: str) -> None:
        with self._lock:
            if pipeline in self._raisers and len(self._hints) < 10_000:  # beyond that the poll finds them
                self._hints.add((pipeline, batch))
        self._deaf = False
        self._wake.set()

    def _take_hints(self) -> set[tuple[str, str]]:
        with self._lock:
            hints, self._hints = self._hints, set()
        return hints

    # --- the server ----------------------------------------------------------------------------------

    def _reach(self) -> None:
        """Find the server, waiting for it. Raises ServerError where it does not come, or refuses us."""
        self._url = server.found(patience=PATIENCE_SECONDS, say=self._say)
        self._api = Api(self._url)

    def _tell(self) -> None:
        """Tell the server what is new; where it is away, what is pending stays so until it is back."""
        try:
            self._tell_each()
        except CredentialsRefused as error:
            if self._away == 0.0 and self._retry == 0.0:  # at the start that is a mistake of configuration
                raise
            self._back_off(error)
        except ServerError as error:
            self._back_off(error)
        else:
            if self._away:
                self._say(f"the Prefect server at {addresses.without_credentials(self._url)} answers again")
            self._away, self._retry = 0.0, time.monotonic()

    def _tell_each(self) -> None:
        if self._api is None:
            self._api = Api(self._url)
        for raiser in self._raisers.values():
            if self._away:
                raiser.ask_again()
            raiser.tell(self._api)

    def _back_off(self, error: ServerError) -> None:
        shortest, longest = BACK_OFF_SECONDS
        if not self._away:
            count = sum(len(raiser.pending) for raiser in self._raisers.values())
            self._say(f"{error.line()} Trying again; {count} events are pending")
        self._away = min(longest, self._away * 2) if self._away else shortest
        self._retry = time.monotonic() + self._away
        url = server.running()
        if url is not None and url != self._url:  # the folder's server came back at another address
            self._url, self._api = url, None

    def _tell_all(self) -> None:
        """Raise what is pending, for as long as one waits for a server at the start. Raises ServerError."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._ending:
            try:
                self._tell_each()
                return
            except CredentialsRefused:
                raise
            except ServerError as error:
                if time.monotonic() >= until:
                    raise
                self._back_off(error)
                self._wake.wait(self._away)
