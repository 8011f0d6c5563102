"""The whole way on real S3 servers. On a directory it is what the tests of the single commands go (commands/)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from leptonflow.data.dataset import admission
from leptonflow.storage.address import open_store
from tests import servers
from tests.e2e.helpers import Result, call, command, digits, good, ingest, pipeline, rows, together, working_folder
from tests.texts import CLASSES, sample

KEYS: dict[str, Any] = {
    "input": [14, 14, 1],
    "model": {"filters": [8], "dense": 16},
    "training": {"epochs": 1, "batch_size": 8, "folds": 2, "learning_rate": 0.005},
    "holdout": {"fraction": 0.25},
    "gate": [
        {"rule": "at_least", "metric": "accuracy", "value": 0.2},
        {"rule": "against_champion", "metric": "accuracy", "margin": 1.0},
    ],
}

TEXTS: dict[str, Any] = {
    "name": "reports", "workload": "text_classification", "input": {"length": 24, "vocabulary": 200},
    "model": {"embedding": 8, "pairs": 0, "token_dropout": 0.0, "dropout": 0.0},
    "training": {"epochs": 12, "batch_size": 16, "folds": 2, "learning_rate": 0.05},
    "gate": [{"rule": "at_least", "metric": "accuracy", "value": 0.7}],
    "serving": {"onnx": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, admission_tools: admission.Tools, prefect_folder: Path
) -> Iterator[Path]:
    """The working folder of all commands here."""
    with working_folder(tmp_path_factory.mktemp("work"), prefect_folder) as folder:
        yield folder


@pytest.fixture(scope="module")
def data(work: Path) -> Path:
    """The pipeline's YAML, beside the folder `monday` of 90 digits."""
    digits(work / "monday", 3, 30)
    (work / "monday" / "1" / "broken.png").write_text("no picture")
    return pipeline(work / "p", **KEYS)


def whole_way(yaml: Path, uri: str) -> None:
    """ingest, retrain, nothing new, more data, retrain, query, rollback: the same on every store."""

    def do(name: str, *arguments: object) -> Result:
        return call(name, yaml, *arguments, "--store", uri, "--json")

    landed, _ = ingest(yaml, yaml.parents[1] / "monday", "--batch", "monday", "--store", uri)
    assert (landed["accepted"], landed["reasons"]) == (90, {"unreadable-image": 1})
    first = do("retrain")
    assert first.status == 0, first.told()
    a = first.document
    assert (a["verdict"], a["champion"]) == ("promoted", a["version"])

    store = open_store(uri)
    before = sorted(store.list(""))
    again = do("retrain")
    assert (again.status, again.err) == (0, "")
    assert again.document == {**a, "verdict": "unchanged"}
    assert ingest(yaml, yaml.parents[1] / "monday", "--batch", "monday", "--store", uri)[0]["outcome"] == "reused"
    assert sorted(store.list("")) == before

    # Another client puts a batch there, under names that it likes, and closes it.
    more = yaml.parents[1] / f"more-{uuid.uuid4().hex[:6]}"
    digits(more, 3, 8, skip=30)
    for number, file in enumerate(sorted(more.rglob("*.png"))):
        name = f"{file.parent.name}/photo #{number} \u00fc.png"
        store.create(f"landing/small/by-hand/{name}", file.read_bytes())
    store.create("landing/small/by-hand/_READY", b"")
    assert do("status").document["waiting"] == ["by-hand"]
    second = do("retrain")
    assert second.status == 0, second.told()
    b = second.document
    assert (b["verdict"], b["batches"]) == ("promoted", ["by-hand"])
    assert sum(b["examples"].values()) == 114

    found = rows(uri, "select r.version, count(*) as n from runs r join predictions p using (run_id) group by all")
    assert {row["version"]: row["n"] for row in found} == {a["version"]: 90, b["version"]: 114}
    assert rows(uri, "select count(*) as n from quarantine") == [{"n": 1}]
    assert rows(uri, "select count(*) as n from models join promotions using (version)") == [{"n": 2}]
    report = call("report", b["run_id"], "--store", uri, "--json").document["path"]
    assert report.endswith("report.html")

    back = do("rollback", "--reason", "worse in the field")
    assert (back.status, back.document["champion"]) == (0, a["version"])
    assert [record["kind"] for record in do("history").document] == ["promotion", "promotion", "rollback"]
    image = next((yaml.parents[1] / "monday" / "0").glob("digit*"))
    answer = do("predict", image)
    assert answer.status == 0 and answer.document[0]["version"] == a["version"]
    kept = do("retrain")
    assert (kept.document["verdict"], kept.document["champion"]) == ("unchanged", a["version"])


# On MinIO a burst that `up` retrains on is among the slow tests: stack/test_burst.py.
@pytest.mark.parametrize("s3_server", ["seaweedfs", pytest.param("minio", marks=pytest.mark.slow)], indirect=True)
def test_the_whole_way_on_s3(data: Path, work: Path, s3_server: servers.Server) -> None:
    whole_way(data, f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")


@pytest.mark.slow  # images on S3 are in every run, and so are texts on a directory: the store knows neither
@pytest.mark.parametrize("s3_server", ["seaweedfs", "minio"], indirect=True)
def test_texts_on_s3(work: Path, s3_server: servers.Server) -> None:
    """A table is ingested, another lies in landing/ by hand; trained on both, predicted, queried."""
    uri, folder = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}", work / f"texts-{s3_server.name}"
    folder.mkdir()
    (folder / "reports.yaml").write_text(yaml.safe_dump(TEXTS))
    lines = [f"{CLASSES[label]},{text}" for text, label in zip(*sample(150), strict=True)]
    (folder / "first.csv").write_text("\n".join(["label,text", *lines[:100], "sport,"]))

    def do(name: str, *arguments: object) -> Result:
        return call(name, folder / "reports.yaml", *arguments, "--store", uri, "--json")

    landed = do("ingest", folder / "first.csv", "--batch", "first").document
    assert (landed["accepted"], landed["reasons"]) == (100, {"empty-text": 1})
    store = open_store(uri)
    store.create("landing/reports/by-hand/data/t.csv", "\n".join(["label,text", *lines[100:]]).encode())
    store.create("landing/reports/by-hand/_READY", b"")
    trained = do("retrain")
    assert trained.status == 0, trained.told()
    assert (trained.document["verdict"], trained.document["batches"]) == ("promoted", ["by-hand"])
    assert sum(trained.document["examples"].values()) == 150
    (said,) = do("predict", "a goal, a penalty and a medal").document
    assert (said["label"], said["error"]) == ("sport", None)
    assert rows(uri, "select count(*) as n from predictions") == [{"n": 150}]
    assert rows(uri, "select rule, source from quarantine") == [{"rule": "empty-text", "source": "first.csv[100]"}]


def test_doctor_creates_the_bucket(data: Path, work: Path, tmp_path: Path, s3_server: servers.Server) -> None:
    uri = f"s3://fresh-{uuid.uuid4().hex[:12]}/store"
    missing = call("doctor", "--store", uri, "--json")
    assert missing.status == 1
    checks = {check["name"]: check for check in missing.document["checks"]}
    assert not checks["store"]["ok"] and "doctor --fix" in checks["store"]["detail"]
    good(tmp_path / "few", ["0", "1"], 2)
    assert call("ingest", data, tmp_path / "few", "--store", uri, "--json").status == 1
    for _ in range(2):  # and again, where it is there
        fixed = call("doctor", "--fix", "--store", uri, "--json")
        assert fixed.status == 0, fixed.told()
        assert servers.SECRET_KEY not in fixed.told()
    from leptonflow.storage import s3

    client = s3.connection().minio("the test looks at the bucket")
    assert client.get_bucket_versioning(uri.split("/")[2]).status == "Enabled"
    assert ingest(data, tmp_path / "few", "--batch", "few", "--store", uri)[0]["accepted"] == 4


@pytest.mark.slow
def test_two_at_once_on_s3(data: Path, work: Path, s3_server: servers.Server) -> None:
    """Parallel runs are allowed there: both end, with one version, one promotion and each row once."""
    if s3_server.name != "minio" and servers.minio_binary():
        pytest.skip("once is enough")
    uri = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"
    ingest(data, data.parents[1] / "monday", "--batch", "monday", "--store", uri)
    results = together(work, [["retrain", data, "--store", uri, "--json"]] * 2)
    assert [result.status for result in results] == [0, 0], [r.told() for r in results]
    documents = [result.document for result in results]
    assert len({d["version"] for d in documents}) == len({d["run_id"] for d in documents}) == 1
    assert {d["verdict"] for d in documents} <= {"promoted", "unchanged"}
    # Whoever is second adopts what the first left, and says so; no library has a word.
    same = "reused: same data, same config, same code"
    told = [line for result in results for line in result.err.splitlines() if "kept in memory" not in line]
    assert all(line.endswith(same) for line in told)
    assert len(call("history", data, "--store", uri, "--json").document) == 1
    assert rows(uri, "select count(*) as n from runs") == [{"n": 1}]
    found = rows(uri, "select split, count(*) as n, count(distinct example_id) as d from predictions group by 1")
    assert all(row["n"] == row["d"] for row in found) and sum(row["n"] for row in found) == 90
    again = command("retrain", data, "--store", uri, "--json", cwd=work)
    assert again.document["verdict"] == "unchanged"
