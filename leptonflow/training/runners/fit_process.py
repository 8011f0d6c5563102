"""A fit in a fresh process, so that fits run side by side, and a kernel that wants memory back ends one of them alone.

`python -m leptonflow.training.runners.fit_process` is that process. It gets references as JSON on its standard input,
ends with it, and answers on a pipe of its own: what it prints goes where this process prints. What does not belong
here: how many there are side by side (seats).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from leptonflow.core import accelerators, child_processes, deadlines, machine, progress
from leptonflow.core.deadlines import Limit
from leptonflow.storage import s3
from leptonflow.storage.address import open_store
from leptonflow.training import model_fits
from leptonflow.training.runners.fit_runner import Here, name
from leptonflow.training.runners.seats import MB, Seat
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline
from schemas.errors import LeptonflowError, TrainingError
from schemas.records import FitResult, Plan

MOST_KILLS = 3  # of one fit's processes in a run
INTERVAL = 0.2  # seconds between two looks at whether the run ends
REPORTS = 0.1  # seconds between two reports of a fit
GRACE = 10.0  # seconds in which a process that shall end may do so by itself
Request = dict[str, Any]


class Ended(NamedTuple):
    """How a process ended. word: its last, None where it had none; peak: its largest memory in bytes."""

    word: dict[str, Any] | None
    status: int
    peak: int


class Processes:
    """Each fit in a process of its own, as many side by side as there are seats."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self._seats: queue.SimpleQueue[Seat] = queue.SimpleQueue()
        for seat in seats:
            self._seats.put(seat)

    def fit(self, store: str, config: Pipeline, plan: Plan, fold: int | None) -> FitResult:
        """As FitRunner says. Raises what a fit raises, TrainingError where its process was killed again and again."""
        version, _ = model_fits.planned(plan)
        if model_fits.fit_result(open_store(store), config.name, version, fold) is not None:
            return Here(Workspace()).fit(store, config, plan, fold)
        request = _request(store, config, plan, fold)
        seat = self._seats.get()
        try:
            for attempt in range(1, MOST_KILLS + 1):
                ended = self._run(request, seat)
                if ended.word is not None:
                    if "result" in ended.word:
                        return FitResult.model_validate(ended.word["result"])
                    raise child_processes.raised(ended.word)
                if ended.status >= 0 or attempt == MOST_KILLS:
                    raise _lost(fold, ended, attempt)
                again = f"it starts again ({attempt + 1} of {MOST_KILLS}), from its last checkpoint if there is one"
                progress.note(f"the process of {name(fold)} was {_killed(ended)}; {again}")
        finally:
            self._seats.put(seat)
        raise AssertionError

    def _run(self, request: Request, seat: Seat) -> Ended:
        """Start a process and follow it to its end. Raises what `progress.pulse` raises, once the process has ended."""
        answers, its = os.pipe()
        environment = {**os.environ, **seat.environment(), "PYTHONPATH": child_processes.python_path()}
        with child_processes.without_interrupts():  # even while it imports
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __spec__.name if __spec__ else __name__, str(its)],
                stdin=subprocess.PIPE, pass_fds=(its,), env=environment,
            )  # fmt: skip
        os.close(its)
        assert process.stdin is not None
        word, peak = None, 0
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            for told in _lines(answers):
                peak = max(peak, machine.peak_memory(process.pid))
                if told is None:
                    continue
                if "at" in told:
                    progress.report(*told["at"])
                elif "detail" in told:
                    progress.detail(*told["detail"])
                elif "note" in told:
                    progress.once(told["note"])  # each process says it
                else:
                    word = told
        finally:
            os.close(answers)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            _end(process)
        return Ended(word, process.returncode, peak)


def _request(store: str, config: Pipeline, plan: Plan, fold: int | None) -> Request:
    limit = deadlines.current()
    if config.training.precision == "auto":  # the version says what it is
        config = accelerators.fixed(config, accelerators.precision(config.training))
    training = config.training
    # In no document, as they change no number; the process needs them all the same.
    apart = {key for key in training.model_fields_set - {"runner"} if type(training).model_fields[key].exclude}
    # Without what the YAML leaves out: a default that is written there is wrong where the user compiles the model.
    document = config.model_dump(mode="json", exclude_unset=True)
    document.setdefault("training", {}).update({key: to_jsonable_python(getattr(training, key)) for key in apart})
    return {
        "store": store,
        "config": {**document, "folder": str(config.folder.absolute())},
        "plan": plan.model_dump(mode="json"),
        "fold": fold,
        "limit": None if limit is None else [limit.stage, limit.seconds, limit.deadline],
        "patience": s3.patience(),
    }


def _lines(answers: int) -> Iterator[dict[str, Any] | None]:
    """What the process says, until it has ended, and None while it says nothing. Raises as `progress.pulse`."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        while True:
            progress.pulse()
            if not selector.select(INTERVAL):
                yield None
                continue
            data = os.read(answers, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process whose standard input is closed; one that goes on is killed."""
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _killed(ended: Ended) -> str:
    number = -ended.status
    why = ", most often by the kernel for want of memory" if number == signal.SIGKILL else ""
    peak = f"; it had {ended.peak // MB} MB of the machine's {machine.memory() // MB} MB" if ended.peak else ""
    return f"killed by signal {number}{why}{peak}"


def _lost(fold: int | None, ended: Ended, times: int) -> TrainingError:
    if ended.status >= 0:
        return TrainingError(
            f"the process of {name(fold)} ended before the fit did",
            expected="it ends with the fit",
            received=f"exit status {ended.status}",
            hint="The lines above may say why, as may the model's own code",
        )
    return TrainingError(
        f"the process of {name(fold)} was killed {times} times",
        expected="a process that ends with its fit",
        received=_killed(ended),
        hint="A larger training.runner.memory lets fewer fits run at a time; a smaller training.batch_size needs less",
    )


# --- the process of a fit ------------------------------------------------------------------------


def main(answers: int) -> None:
    """Compute the fit that standard input asks for, and end. A standard input that ends, ends the fit."""
    os.set_inheritable(answers, False)
    request = json.loads(sys.stdin.buffer.readline())
    lock = threading.Lock()
    last: dict[str, float] = {}

    def tell(**word: Any) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            os.write(answers, json.dumps(word).encode() + b"\n")

    def report(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - last.get(stage, -REPORTS) >= REPORTS:
            last[stage] = now
            tell(at=[stage, done, total])

    with progress.listen(report, lambda text: tell(note=text), lambda *said: tell(detail=said)) as end:
        threading.Thread(target=_end_with_the_parent, args=(end, last), daemon=True).start()
        try:
            tell(result=_fit(request).model_dump(mode="json"))
        except progress.Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - the parent raises it, in one line
            if not isinstance(error, LeptonflowError):
                import traceback

                traceback.print_exc()
            tell(**child_processes.told(error, "a fit failed"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the word is written, and a backend takes a second to shut down


def _fit(request: Request) -> FitResult:
    config = Pipeline.model_validate_json(json.dumps(request["config"]))
    plan = Plan.model_validate(request["plan"])
    with s3.patient(request["patience"]), _within(request["limit"]):
        return Here(Workspace()).fit(request["store"], config, plan, request["fold"])


@contextmanager
def _within(limit: list[Any] | None) -> Iterator[None]:
    if limit is None:
        yield
        return
    with deadlines.within(Limit(*limit)):
        yield


def _end_with_the_parent(end: Any, begun: dict[str, float]) -> None:
    sys.stdin.buffer.read()
    if begun:  # a fit that is under way ends at its next step
        end()
        time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
