"""Fits in processes of their own: the same files as in one process, what they say and print, and how they end."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import accelerators, deadlines, machine, progress
from leptonflow.core.deadlines import Limit
from leptonflow.runs import planning
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.training.runners import fit_process, seats
from leptonflow.training.runners.fit_process import Processes
from leptonflow.training.runners.fit_runner import Here
from leptonflow.training.runners.seats import Seat
from leptonflow.training.workspace import Workspace
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError, TimeLimit, TrainingError
from schemas.records import Plan
from schemas.training import compiled_keys
from tests.fit_examples import land, pipeline

OWN = """
import keras

def build(input, classes):
    print("built by the user")
    {first}
    layers = keras.layers
    return keras.Sequential([layers.Input((12, 12, 1)), layers.Flatten(), layers.Dense(len(classes), "softmax")])
"""
# Python runs it as it starts: what befalls the process of a fit from outside, before it imports anything slow.
START = """
import os, signal, sys, time
if "leptonflow.training.runners.fit_process" in sys.orig_argv:
    with open({file!r}, "a") as file:
        file.write(".")
    with open({file!r} + ".pids", "a") as file:
        print(os.getpid(), file=file)
    if os.path.getsize({file!r}) <= {times}:
        {what}
"""


def landed(folder: Path, config: Pipeline) -> tuple[str, Plan]:
    uri = str(folder / "store")
    return uri, land(open_store(uri), config)


def own(folder: Path, first: str = "pass") -> Pipeline:
    """A pipeline whose model is the user's own, which does `first` when it builds it."""
    (folder / "mine.py").write_text(OWN.format(first=first))
    return pipeline(model={"function": "mine:build"}).model_copy(update={"folder": folder})


@pytest.fixture
def befall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """Makes the first processes of a fit do something as they start; the file that has a character for each."""

    def befall(what: str, times: int) -> Path:
        file, folder = tmp_path / "started", tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(START.format(file=str(file), times=times, what=what))
        monkeypatch.setenv("PYTHONPATH", str(folder))
        return file

    return befall


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_fit_in_a_process_of_its_own_is_the_fit_in_this_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], befall: Callable[[str, int], Path]
) -> None:
    config, started = own(tmp_path), befall(KILL, 1)
    told: list[Any] = []
    notes: list[str] = []
    (uri, plan), (other, same) = (landed(tmp_path / name, config) for name in ("there", "here"))
    limit = Limit("train", 1000, time.time() + 1000)
    with progress.listen(lambda *at: told.append(at), notes.append), deadlines.within(limit):
        found = Processes([Seat()]).fit(uri, config, plan, 1)
    assert started.read_text() == ".."
    assert notes[:1] == [
        "the process of fold 2 was killed by signal 9, most often by the kernel for want of memory; "
        "it starts again (2 of 3), from its last checkpoint if there is one"
    ]
    assert "built by the user" in capfd.readouterr().out
    assert told[0][0] == "fold 2" and told[-1][1] == told[-1][2] > 0
    among = Here(Workspace()).fit(other, config, same, 1)
    assert found.metrics == among.metrics
    assert open_store(uri).get(found.files[0].key) == open_store(other).get(among.files[0].key)
    assert found.cost is not None and found.cost.peak_memory > 100 * seats.MB

    assert Processes([Seat()]).fit(uri, config, plan, 1) == found  # it lies on the store: no process starts
    assert started.read_text() == ".."


def test_a_process_gets_the_configuration_as_the_yaml_has_it() -> None:
    plan = Plan(
        pipeline="squares", attempt=0, version="a" * 12, run_id=None, snapshot=None, waiting=(), trained=False,
        finished=False,
    )  # fmt: skip
    steered = {"optimizer": {"name": "sgd"}, "augment": [{"flip": "both"}], "early_stopping": {"patience": 2}}
    for training in ({"epochs": 1}, {**steered, "devices": 2, "checkpoint": {"minutes": 1}, "runner": "process"}):
        config = pipeline(training=training, folder=Path.cwd())
        data = json.dumps(fit_process._request("/s", config, plan, 0)["config"])
        found = Pipeline.model_validate_json(data)
        assert found.training == config.training.model_copy(update={"runner": found.training.runner})
        assert found.model_dump() == config.model_dump() and found.folder == config.folder
        # What the YAML leaves out stays out: it is wrong where the user's own code compiles the model.
        assert compiled_keys(found.training) == compiled_keys(config.training)


def test_a_process_that_is_killed_each_time_is_a_failure_with_the_numbers(
    tmp_path: Path, befall: Callable[[str, int], Path]
) -> None:
    config, started = pipeline(), befall("data = b'.' * 200_000_000; time.sleep(1); " + KILL, 9)
    uri, plan = landed(tmp_path, config)
    with pytest.raises(TrainingError) as failed:
        Processes([Seat()]).fit(uri, config, plan, None)
    assert started.read_text() == "..."
    assert failed.value.message == "the process of the final fit was killed 3 times"
    told = re.fullmatch(
        r"killed by signal 9, most often by the kernel for want of memory; it had (\d+) MB of the machine's (\d+) MB",
        str(failed.value.received),
    )
    assert told is not None and 200 <= int(told[1]) < 400 and int(told[2]) == machine.memory() // seats.MB
    assert failed.value.exit_status == 1


INTERRUPT = "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)"


def test_a_process_that_ends_by_itself_is_not_started_again(tmp_path: Path, befall: Callable[[str, int], Path]) -> None:
    """A Ctrl-C while it imports does nothing: its parent ends it."""
    config, started = pipeline(), befall(f"{INTERRUPT}; os._exit(7)", 9)
    uri, plan = landed(tmp_path, config)
    with pytest.raises(TrainingError, match=r"ended before the fit did.*Received: exit status 7"):
        Processes([Seat()]).fit(uri, config, plan, 0)
    assert started.read_text() == "."


def test_a_run_that_ends_takes_its_processes_with_it(
    tmp_path: Path, befall: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_process, "GRACE", 0.1)
    config, started = pipeline(), befall("time.sleep(100)", 9)
    uri, plan = landed(tmp_path, config)
    with pytest.raises(TimeLimit, match=r"limits\.train"), deadlines.within(Limit("train", 1, time.time() + 1)):
        Processes([Seat()]).fit(uri, config, plan, 0)

    def end(stop: Callable[[], None]) -> None:
        while started.read_text() == ".":
            time.sleep(0.01)  # until the second process is there
        stop()

    with progress.listen() as stop:
        thread = threading.Thread(target=end, args=(stop,))
        thread.start()
        with pytest.raises(progress.Stopped):
            Processes([Seat()]).fit(uri, config, plan, 0)
        thread.join()
    pids = started.with_suffix(".pids").read_text().split()
    assert len(pids) == 2
    for process in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


@pytest.mark.slow
def test_a_fits_error_is_that_of_its_process(tmp_path: Path) -> None:
    config = own(tmp_path, "raise ValueError('no such layer')")
    uri, plan = landed(tmp_path, config)
    with pytest.raises(ConfigurationError, match=r"model\.function mine:build.*no such layer.*mine\.py:6"):
        Processes([Seat()]).fit(uri, config, plan, 0)


# --- how many, and on which GPUs -----------------------------------------------------------------


def of(runner: Any, **training: Any) -> Pipeline:
    return pipeline(training={"batch_size": 16, "folds": 5, "runner": runner, **training})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine of so many cores, so much memory, and these GPUs."""

    def small(cores: int, gigabytes: float, gpus: int = 0) -> None:
        monkeypatch.setattr(machine, "cores", lambda: cores)
        monkeypatch.setattr(machine, "memory", lambda: int(gigabytes * 10**9))
        monkeypatch.setattr(accelerators, "gpus", lambda: ("NVIDIA H100",) * gpus)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return small


@pytest.mark.parametrize(
    ("runner", "cores", "gigabytes", "count"),
    [
        ("process", 64, 512, 5),
        ("process", 3, 512, 3),
        ("process", 64, 7, 3),
        ("process", 1, 1, 1),  # what nobody asked for does not end a run
        ({"name": "process", "cpus": 8}, 20, 512, 2),
        ({"name": "process", "memory": "500MB"}, 64, 1.6, 3),
    ],
)
def test_as_many_at_a_time_as_there_is_room_for(
    runner: Any, cores: int, gigabytes: float, count: int, small: Callable[..., None]
) -> None:
    small(cores, gigabytes)
    assert seats.seats(of(runner), 5) == [Seat()] * count


def test_a_gpu_is_shared_only_where_the_yaml_asks_for_a_fraction(small: Callable[..., None]) -> None:
    small(64, 512, gpus=1)
    assert seats.seats(of("process"), 5) == [Seat(("0",))]
    halves = seats.seats(of({"name": "process", "gpus": 0.5}), 5)
    assert halves == [Seat(("0",), 0.5)] * 2
    assert halves[0].environment() == {
        "CUDA_VISIBLE_DEVICES": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450",
    }  # fmt: skip
    none = seats.seats(of({"name": "process", "gpus": 0}), 5)
    assert len(none) == 5 and none[0].environment() == {"CUDA_VISIBLE_DEVICES": ""}


def test_auto_precision_is_that_of_the_run_for_a_fit_that_sees_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 9.0\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    plan = land(MemoryStore("memory://precision"), pipeline())
    request = fit_process._request("/s", pipeline(training={"precision": "auto"}), plan, 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = Pipeline.model_validate_json(json.dumps(request["config"]))
    assert accelerators.precision(found.training) == "bfloat16"


def test_each_fit_sees_its_own_gpus(small: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    small(64, 512, gpus=5)
    assert [seat.gpus for seat in seats.seats(of("process"), 5)] == [("0",), ("1",), ("2",), ("3",), ("4",)]
    pairs = seats.seats(of({"name": "process", "gpus": 2}, devices=2), 5)
    assert [seat.environment() for seat in pairs] == [{"CUDA_VISIBLE_DEVICES": each} for each in ("0,1", "2,3")]
    assert seats.seats(of("process", devices=2), 5) == pairs
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    assert [seat.gpus for seat in seats.seats(of("process"), 5)] == [("GPU-aa",), ("GPU-bb",)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert seats.seats(of("process"), 5) == [Seat()] * 5


@pytest.mark.parametrize(
    ("runner", "told"),
    [
        ({"cpus": 9}, r"training\.runner\.cpus is more than this machine has.*at most 8\. Received: 9"),
        ({"memory": "17GB"}, r"training\.runner\.memory is more.*at most 16000 MB\. Received: 17GB"),
        ({"gpus": 2}, r"training\.runner\.gpus is more.*at most 1, which this machine has\. Received: 2"),
    ],
)
def test_more_than_the_machine_has_is_a_wrong_configuration(
    runner: dict[str, Any], told: str, small: Callable[..., None]
) -> None:
    small(8, 16, gpus=1)
    with pytest.raises(ConfigurationError, match=told):
        seats.seats(of({"name": "process", **runner}, devices=runner.get("gpus", "auto")), 5)


@pytest.mark.parametrize(
    ("runner", "told"),
    [
        ("rya", r"training\.runner is not valid.*one of local, process, ray, or a mapping of name, cpus.*'rya'"),
        ({"name": "process", "cpu": 2}, r"unknown key training\.runner\.cpu.*Did you mean cpus"),
        ({"name": "process", "cpus": 0}, r"training\.runner\.cpus.*greater than or equal to 1.*0"),
        ({"name": "process", "memory": 4}, r"training\.runner\.memory.*500MB or 4GB.*4"),
        ({"name": "process", "memory": "4"}, r"training\.runner\.memory.*a size such as 500MB or 4GB.*'4'"),
        ({"name": "process", "gpus": 1.5}, r"training\.runner\.gpus.*a share of one such as 0\.5.*1\.5"),
        ({"name": "process", "gpus": 2}, r"training\.runner\.gpus.*at most 1:.*training\.devices is auto"),
        ({"name": "process", "address": "auto"}, r"training\.runner\.address.*no such key with the runner process"),
        ({"cpus": 2}, r"training\.runner\.cpus.*no such key with the runner local"),
        ({"name": "ray", "address": "http://x"}, r"training\.runner\.address.*ray://host:port.*http://x"),
    ],
)
def test_a_wrong_value_is_named(runner: Any, told: str) -> None:
    document = pipeline().model_dump(mode="json") | {"training": {"batch_size": 16, "runner": runner}}
    with pytest.raises(ConfigurationError, match=told):
        parse(document, where="p.yaml", folder=Path("."))


def test_a_wrong_key_of_checkpoint_is_named() -> None:
    document = pipeline().model_dump(mode="json") | {"training": {"checkpoint": {"minute": 1}}}
    with pytest.raises(ConfigurationError, match=r"checkpoint\.minute\..*one of minutes\..*Did you mean minutes"):
        parse(document, where="p.yaml", folder=Path("."))


def test_where_a_fit_runs_is_in_no_digest() -> None:
    plain = pipeline(training={"batch_size": 16, "folds": 5})
    plan = land(MemoryStore("memory://runner"), plain)
    assert plan.snapshot is not None
    code = {"data": "d", "train": "t", "gate": "g"}
    for runner in ("process", {"name": "ray", "address": "ray://head:10001", "cpus": 4, "gpus": 0.5}):
        config = of(runner)
        assert planning.ids(config, plan.snapshot, code, 0) == planning.ids(plain, plan.snapshot, code, 0)
        assert planning.asked(config, "c") == planning.asked(plain, "c")
        assert config.model_dump_json() == plain.model_dump_json()
