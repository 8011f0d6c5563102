"""`serve` as a person starts it: it answers as `predict` does, keeps what it answered, and ends when it is told."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from leptonflow.registry import onnx_export, packages
from leptonflow.storage.directory_store import DirectoryStore
from serving import api_keys
from tests import served_champions
from tests.e2e.helpers import call, start
from tests.served_champions import NAME, png, until


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline's YAML and a store with its champion."""
    folder = tmp_path_factory.mktemp("served")
    document = served_champions.config().model_dump(mode="json", exclude_none=True)
    (folder / "digits.yaml").write_text(yaml.safe_dump({**document, "name": NAME}))
    model = served_champions.model(1)
    exported = onnx_export.export(model, np.zeros((1, *served_champions.SHAPE), np.uint8))
    store = DirectoryStore((folder / "store").as_uri())
    served_champions.promote(store, "one", model, [(packages.ONNX, exported)])
    return folder


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def resident(pid: int) -> float:
    """Megabytes of memory that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def test_a_server_answers_and_ends(place: Path) -> None:
    """It runs the exported model: without TensorFlow, in 300 MB."""
    port, image = free(), place / "image.png"
    image.write_bytes(png(1))
    process = start("serve", place / "digits.yaml", "--store", place / "store", "--port", port, cwd=place)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:

            def ready() -> bool:
                assert process.poll() is None, process.communicate()
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready, 120)
            (served,) = client.post(f"/v1/{NAME}/predict", content=image.read_bytes()).json()["predictions"]
            (told,) = call("predict", place / "digits.yaml", image, "--store", place / "store", "--json").document
            assert (served["label"], served["version"]) == (told["label"], told["version"])
            assert served["probability"] == pytest.approx(told["probability"], abs=1e-5)
            taken = call("serve", place / "digits.yaml", "--store", place / "store", "--port", port)
            assert taken.status == 1 and f"cannot listen on 127.0.0.1:{port}" in taken.err
            if sys.platform == "linux":
                assert "tensorflow" not in Path(f"/proc/{process.pid}/maps").read_text()
                assert resident(process.pid) < 300
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in err, err
    assert f"listening on http://127.0.0.1:{port}, without keys" in out and "one is served by onnxruntime" in out
    (row,) = call("query", "SELECT request_id, version FROM served", "--store", place / "store", "--json").document
    assert row == {"request_id": served["request_id"], "version": "one"}


HANGS = """
import sys, threading
from leptonflow.core.pipeline_files import load_config
from leptonflow.storage.address import open_store
from serving import app, live_models, running

def hang(live, encoded):
    print("predicting", flush=True)
    threading.Event().wait()

def loaded(*given, load=live_models.load):
    live = load(*given)
    live_models.Live.predict = hang
    return live

live_models.load = loaded
running.STOP_SECONDS, running.END_SECONDS, app.CLOSE_SECONDS = int(sys.argv[4]), 0.2, 0.2
threading.Thread(target=threading.Event().wait, name="decode").start()
config, store, port = load_config(sys.argv[1]), open_store(sys.argv[2]), int(sys.argv[3])
sys.exit(running.run(store, [config], "127.0.0.1", port, running.rules("127.0.0.1", {}, False), None, print))
"""


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("stop", "seconds", "status", "words"),
    [
        ((signal.SIGTERM,), 1, 1, f"ended without {NAME}, decode: still at work 0.2 s after the last request"),
        ((signal.SIGINT, signal.SIGINT), 300, 130, ""),
    ],
)
def test_a_model_that_hangs_does_not_hold_the_end(
    place: Path, stop: tuple[signal.Signals, ...], seconds: int, status: int, words: str
) -> None:
    port = free()
    given = [str(place / "digits.yaml"), (place / "store").as_uri(), str(port), str(seconds)]
    command = [sys.executable, "-c", HANGS, *given]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("is served by onnxruntime" in line for line in lines)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert any("predicting" in line for line in lines)
            for number in stop:
                process.send_signal(number)
                until(lambda: refused(port))
            out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status and "Traceback" not in err, err
    assert words in out


WRONG: dict[str, tuple[list[str], str]] = {
    "an open address without keys": (["--host", "0.0.0.0"], "there are no API keys"),
    "a pin without a reason": (["--pin", "one"], "--reason is empty"),
    "a reason without a pin": (["--reason", "so"], "--reason is the reason of --pin"),
    "a pin that is no name": (["--pin", "../one", "--reason", "so"], "not a version's name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_told(place: Path, case: str) -> None:
    options, words = WRONG[case]
    told = call("serve", place / "digits.yaml", "--store", place / "store", *options)
    assert told.status == 2 and words in told.err


def test_a_pin_that_does_not_exist_ends_it_at_the_start(place: Path) -> None:
    store, pin = place / "store", ("--pin", "nope", "--reason", "so")
    told = call("serve", place / "digits.yaml", "--store", store, *pin)
    again = call("promote", place / "digits.yaml", "--store", store, "--version", "nope", "--reason", "so")
    assert told.status == again.status == 1
    assert f"the pipeline {NAME} has no version nope. Expected: one of one. Received: nope." in told.err


def test_keys_are_read_and_never_shown(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = call("serve", "--new-key", "alice")
    assert made.status == 0
    key, entry = (line.rpartition(" ")[2] for line in made.out.splitlines())
    file = tmp_path / "keys"
    file.write_text(f"# who may ask\n{entry}  # for her scripts\n\nbob:{'0' * 64}\n")
    keys = api_keys.configured({api_keys.FILE: str(file)})
    assert list(keys) == ["alice", "bob"] and api_keys.owner(keys, key.encode()) == "alice"
    assert api_keys.owner(keys, entry.encode()) is None
    monkeypatch.setenv(api_keys.VARIABLE, f"alice:{key}")
    told = call("serve", place / "digits.yaml", "--store", place / "store", "--host", "0.0.0.0")
    assert told.status == 2 and key not in told.told() and "entry 1 of LEPTONFLOW_API_KEYS" in told.err
    monkeypatch.setenv(api_keys.VARIABLE, "")
    monkeypatch.setenv(api_keys.FILE, str(tmp_path / "none"))
    told = call("serve", place / "digits.yaml", "--store", place / "store")
    assert told.status == 2 and "LEPTONFLOW_API_KEYS_FILE cannot be read" in told.err
