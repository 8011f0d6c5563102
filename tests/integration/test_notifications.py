"""What a person sees of a run on a real Prefect server, and who is notified of its end. One server, one process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import run_names
from tests.e2e import helpers
from tests.prefect_servers import PrefectServer, full_server

pytestmark = pytest.mark.slow  # a full server of their own; tests/e2e/stack/test_arrivals.py is in every run

ROOT = Path(__file__).resolve().parents[2]
SECRETS = ("aws-s3cret-of-the-store", "hook-s3cret-of-the-block")
WATCHED = {"block": "custom-webhook/ops", "on": ["failure", "refused", "promoted", "rejected-data"]}
STAGES = (
    "discover", "validate", "preprocess", "discover", "split", "begin", "train-fold", "fit-final", "package",
    "find-champion", "evaluate", "infra-validate", "gate", "promote", "record",
)  # fmt: skip

# Every run in one process, which imports Keras once. Each line: what the flow returned, or the error that it raised.
RUNS = """
import json, shutil, sys
from pathlib import Path
import yaml
from flows import local_run
from leptonflow.core.pipeline_files import load_config
from leptonflow.evaluation import load_check
from leptonflow.registry import manual_decisions
from leptonflow.storage.address import open_store
from schemas.errors import LeptonflowError

store, receiver = Path("store").absolute().as_uri(), sys.argv[1]
whole = yaml.safe_load(Path("small.yaml").read_text())

def run(force=False, **changed):
    Path("small.yaml").write_text(yaml.safe_dump({**whole, **changed}))
    try:
        told = local_run.retrain(load_config("small.yaml"), "small.yaml", store, force)
    except LeptonflowError as error:
        told = error.document()
    print(json.dumps(told), flush=True)

with local_run.prefect():
    from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block
    body = {"subject": "{{subject}}", "body": "{{body}}"}
    Block(name="ops", url=f"{receiver}/{{{{token}}}}", json_data=body,
          secrets={"token": "hook-s3cret-of-the-block"}).save("ops")
    Block(name="broken", url=f"{receiver}/broken/hook-s3cret-of-the-block", json_data=body).save("broken")

run()                                   # 0 promoted
run()                                   # 1 unchanged
run(training={**whole["training"], "seed": 1})                               # 2 promoted: another version
config, opened = load_config("small.yaml"), open_store(store)
manual_decisions.rollback(opened, "small", None, "the second one is worse", "kim",
                   lambda version, sha: load_check.validate(opened, config, version, sha))
run()                                   # 3 unchanged, and a person had rolled back
run(gate=[{"rule": "at_least", "metric": "accuracy", "value": 1.1}])         # 4 refused
run(force=True, limits={"train": 0.01})                                        # 5 over its limit
bad = Path("store/landing/small/bad/0")
bad.mkdir(parents=True)
for number in range(5):
    (bad / f"{number}.png").write_bytes(b"no picture at all %d" % number)
(bad.parent / "_READY").write_bytes(b"")
run()                                   # 6 rejected-data
good = Path("store/landing/small/good")
shutil.copytree("store/landing/small/first", good)
Path("store/landing/small/good/0/one-more.png").write_bytes(b"another file")
run(limits={"validate": 0.0001})        # 7 over another limit
run(limits={"validate": 0.0001}, notify={"block": "custom-webhook/broken"})   # 8 the block fails
run(limits={"validate": 0.0001}, notify={"block": "custom-webhook/nobody"})   # 9 there is no such block
"""


class Receiver(BaseHTTPRequestHandler):
    """Takes every notification but the broken block's."""

    received: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/broken"):
            self.send_error(500)
            return
        self.received.append((self.path, json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the terminal."""


@dataclass
class Told:
    """All that the runs left behind."""

    documents: list[dict[str, Any]]
    runs: list[dict[str, Any]]  # as the API has them, in the same order
    received: list[tuple[str, dict[str, Any]]]
    server: PrefectServer
    folder: Path

    def logs(self, number: int) -> list[dict[str, Any]]:
        chosen = {"logs": {"flow_run_id": {"any_": [self.runs[number]["id"]]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return list(self.server.call("POST", "/logs/filter", chosen))

    def artifacts(self, number: int) -> dict[str, dict[str, Any]]:
        chosen = {"artifacts": {"flow_run_id": {"any_": [self.runs[number]["id"]]}}}
        found = self.server.call("POST", "/artifacts/filter", chosen)
        assert len({a["key"] for a in found}) == len(found)
        return {a["key"]: a for a in found}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("telling")
    training = {"epochs": 10, "folds": 3, "batch_size": 16}
    helpers.pipeline(folder, training=training, model={"filters": [8], "dense": 8}, notify=WATCHED)
    helpers.digits(folder / "store" / "landing" / "small" / "first", 3, 40)
    (folder / "store" / "landing" / "small" / "first" / "_READY").write_bytes(b"")
    received: list[tuple[str, dict[str, Any]]] = []
    handler = type("Handler", (Receiver,), {"received": received})
    receiver = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with full_server(folder / "prefect") as server:
        done = subprocess.run(
            [sys.executable, "-c", RUNS, f"http://127.0.0.1:{receiver.server_port}"],
            cwd=folder, capture_output=True, text=True,
            env={**server.environment, "PYTHONPATH": str(ROOT), "AWS_SECRET_ACCESS_KEY": SECRETS[0]},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        runs = server.call("POST", "/flow_runs/filter", {"sort": "START_TIME_ASC"})
        yield Told(documents, runs, received, server, folder)
    receiver.shutdown()
    receiver.server_close()


def test_each_run_is_named_and_tagged_by_pipeline_data_and_verdict(told: Told) -> None:
    snapshot = told.documents[0]["snapshot"]
    ends = [d.get("verdict", "failed") for d in told.documents]
    assert ends == [
        "promoted", "unchanged", "promoted", "unchanged", "refused", "failed", "rejected-data",
        "failed", "failed", "failed",
    ]  # fmt: skip
    # The last ones failed before the batches were in: what they were about is not known.
    known = [f"small-{snapshot}-{end}" for end in ends[:-3]]
    assert [run["name"] for run in told.runs] == [*known, *["small-failed"] * 3]
    assert [run["tags"] for run in told.runs] == [sorted(["leptonflow", "small", end]) for end in ends]


def test_the_final_state_is_named_and_says_why(told: Told) -> None:
    for document, run in zip(told.documents, told.runs, strict=True):
        state = run["state"]
        if "error" in document:
            assert (state["type"], state["name"]) == ("FAILED", "Failed")
            assert state["message"].startswith(document["error"]["message"])
        else:
            assert (state["type"], state["name"]) == ("COMPLETED", document["verdict"])
            assert state["message"] == run_names.sentence(document)
    assert "nothing new since run" in told.runs[1]["state"]["message"]
    for number, stage, seconds in ((5, "train", "0.01"), (7, "validate", "0.0001")):
        message = told.runs[number]["state"]["message"]
        assert message.startswith(f"the stage {stage} took longer than its limit. Expected: at most {seconds} s")
        assert f"limits.{stage}" in message


def test_a_trained_run_shows_summary_gate_pictures_report_and_progress(told: Told) -> None:
    document, found = told.documents[0], told.artifacts(0)
    assert set(found) == {
        f"{kind}-small" for kind in ("summary", "gate", "curves", "confusion", "report", "progress", "champion")
    }
    assert found["summary-small"]["description"] == document["sentence"]
    assert found["summary-small"]["data"].startswith("# promoted\n")
    assert [row["rule"] for row in json.loads(found["gate-small"]["data"])] == [r["rule"] for r in document["gate"]]
    for key in ("curves-small", "confusion-small"):
        assert found[key]["type"] == "image" and found[key]["data"].startswith("data:image/svg+xml;base64,")
    assert document["report"] in found["report-small"]["data"]
    assert document["run_id"] in found["report-small"]["description"]
    assert found["champion-small"]["data"].startswith(f"# {document['version']}\n")


def test_progress_moves_while_folds_train_and_ends_at_the_whole(told: Told) -> None:
    progress = told.artifacts(0)["progress-small"]
    assert (progress["type"], progress["data"]) == ("progress", 100.0)
    assert progress["description"] == "3 folds and the final fit are done"
    name = f"prefect.artifact.{progress['id']}"
    chosen = {"filter": {"event": {"name": ["prefect.artifact.updated"]}, "resource": {"id": [name]}}}
    deadline = time.monotonic() + 20  # events are written some time after they came
    steps: list[float] = []
    while (not steps or max(steps) < 100) and time.monotonic() < deadline:
        found = told.server.call("POST", "/events/filter", chosen)["events"]
        steps = [event["payload"]["data"] for event in sorted(found, key=lambda e: e["occurred"])]
        time.sleep(0.1)
    assert steps == sorted(steps) and steps[-1] == 100
    times = sorted(event["occurred"] for event in found)
    assert len(times) <= told.documents[0]["seconds"]["train-fold"] + told.documents[0]["seconds"]["fit-final"] + 2


def test_the_champions_artifact_has_the_history_a_persons_decision_too(told: Told) -> None:
    found = told.server.call(
        "POST", "/artifacts/filter",
        {"artifacts": {"key": {"any_": ["champion-small"]}}, "sort": "ID_DESC"},
    )  # fmt: skip
    by_run = {a["flow_run_id"]: a["data"].splitlines()[0] for a in found}
    first, second = told.documents[0]["version"], told.documents[2]["version"]
    assert first != second
    # Written where it changed, and only there.
    assert by_run == {
        told.runs[0]["id"]: f"# {first}",
        told.runs[2]["id"]: f"# {second}",
        told.runs[3]["id"]: f"# {first}",
    }
    latest = told.server.call("GET", "/artifacts/champion-small/latest")
    assert "rollback of kim: the second one is worse" in latest["data"]


def test_data_that_was_refused_is_told_with_its_rules(told: Told) -> None:
    found = told.artifacts(6)
    assert set(found) == {"summary-small"}
    assert found["summary-small"]["data"].startswith("# rejected-data\n")
    assert "| bad | refused | 5 | 0 | 5 | 0 |" in found["summary-small"]["data"]
    assert "| unreadable-image | 5 |" in found["summary-small"]["data"]


def test_the_log_has_one_line_a_stage(told: Told) -> None:
    messages = [log["message"] for log in told.logs(0)]
    assert [m.split(" took ")[0] for m in messages if " took " in m] == list(STAGES)
    first, kept, examples, last = [m for m in messages if " took " not in m]
    assert first.startswith("Beginning flow run") and last.startswith("Finished in state")
    assert examples.endswith("are kept in memory")
    assert Path(kept.removeprefix("this log is kept in ")).is_file()


def test_no_secret_is_in_a_log_a_message_an_artifact_or_a_notification(told: Told) -> None:
    whole = json.dumps([told.logs(n) for n in range(len(told.runs))])
    whole += json.dumps(told.runs) + json.dumps([told.artifacts(n) for n in range(len(told.runs))])
    whole += json.dumps([body for _, body in told.received])
    assert not [secret for secret in SECRETS if secret in whole]


def test_whoever_asked_is_told_once_of_each_end_that_was_asked_for(told: Told) -> None:
    assert {path for path, _ in told.received} == {f"/{SECRETS[1]}"}
    ends = [(n, d.get("verdict", "failed")) for n, d in enumerate(told.documents)]
    expected = [(n, end) for n, end in ends if end != "unchanged" and n not in (8, 9)]
    assert [body["subject"] for _, body in told.received] == [f"leptonflow: small {end}" for _, end in expected]
    for (number, _), (_, body) in zip(expected, told.received, strict=True):
        run = told.runs[number]
        assert body["body"].startswith(run["state"]["message"])
        assert f"run {run['name']}" in body["body"]
        assert f"/runs/flow-run/{run['id']}" in body["body"]


def test_a_block_that_fails_or_is_missing_is_one_line_in_the_log(told: Told) -> None:
    for number, told_of in ((8, "custom-webhook/broken failed with"), (9, "custom-webhook/nobody failed with")):
        lines = [log["message"] for log in told.logs(number) if "no notification was sent" in log["message"]]
        assert len(lines) == 1 and told_of in lines[0]
    assert "HTTP status 500" in json.dumps(told.logs(8))


def test_what_a_failure_left_behind_is_no_pickle(told: Told) -> None:
    """Prefect keeps the exception of a flow that raises, whatever was said about results."""
    stored = [p for p in told.folder.rglob("*") if p.is_file() and "storage" in p.parts and "client" in p.parts]
    assert not stored
    assert yaml.safe_load((told.folder / "small.yaml").read_text())["name"] == "small"
