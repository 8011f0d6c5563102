"""The HTTP application: what it answers to which request, and that it answers as `predict` does."""

from __future__ import annotations

import base64
import dataclasses
import io
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from leptonflow.evaluation import champion_predictions
from leptonflow.registry import champion_log, serving_decisions
from leptonflow.runs import stored_pipelines
from leptonflow.storage import s3
from leptonflow.storage.address import open_store
from leptonflow.storage.directory_store import DirectoryStore
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from schemas.served import REQUEST_ID, Served
from serving import request_bodies
from serving.access import Rules
from serving.app import Options, create_app
from tests import served_champions
from tests.served_champions import NAME, SHAPE, png, until

URL = f"/v1/{NAME}/predict"
TOLERANCE = 1e-5


class Kept:
    """A prediction log in memory."""

    dropped, waiting = 0, 3

    def __init__(self) -> None:
        self.rows: list[Served] = []
        self.closed = False

    def add(self, row: Served) -> None:
        self.rows.append(row)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def models() -> list[Any]:
    return [served_champions.model(seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def store(models: list[Any]) -> MemoryStore:
    store = MemoryStore("memory://serving-app")
    served_champions.promote(store, "one", models[0])
    return store


@pytest.fixture(scope="module")
def log() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def client(store: Store, log: Kept) -> Iterator[TestClient]:
    app = create_app(store, [served_champions.config(examples=8, body_mb=1)], Options(poll=0.05), log)
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client
    assert log.closed


def offline(store: Store, folder: Path, images: list[bytes]) -> list[dict[str, Any]]:
    """What `predict --json` says of the same files."""
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    return champion_predictions.predict(store, served_champions.config(), paths)


def same(served: dict[str, Any], told: dict[str, Any]) -> None:
    for key in ("label", "version", "error"):
        assert served[key] == told[key]
    if told["probability"] is not None:
        assert served["probability"] == pytest.approx(told["probability"], abs=TOLERANCE)
        assert max(served["probabilities"].values()) == served["probability"]


def test_the_process_says_that_it_runs(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok\n"


def test_it_predicts_what_predict_does(client: TestClient, store: Store, tmp_path: Path, log: Kept) -> None:
    """Raw bytes, a form, JSON: the same rows, those that cannot be read among them, in their places."""
    images = [png(1), b"no image", png(2, size=100), png(3)]
    told = offline(store, tmp_path, images)
    log.rows.clear()
    one = client.post(URL, content=images[0], headers={"content-type": "image/png"})
    assert one.status_code == 200
    assert one.json()["version"] == one.headers["x-model-version"] == "one"
    same(one.json()["predictions"][0], told[0])
    form = client.post(URL, files=[("file", (f"{n}.png", image)) for n, image in enumerate(images)])
    bodies = {"examples": [base64.b64encode(images[0]).decode(), *({"base64": base64.b64encode(i).decode()}
                                                                  for i in images[1:])]}  # fmt: skip
    as_json = client.post(URL, json=bodies)
    for response in (form, as_json):
        assert response.status_code == 200
        for served, row in zip(response.json()["predictions"], told, strict=True):
            same(served, row)
    assert [row["file"] for row in form.json()["predictions"]] == ["0.png", "1.png", "2.png", "3.png"]
    until(lambda: len(log.rows) == 7)
    assert {row.request_id for row in log.rows} <= {
        row["request_id"] for each in (one, form, as_json) for row in each.json()["predictions"]
    }
    first = log.rows[0]
    assert (first.version, first.source, first.predicted) == ("one", "predict", told[0]["label"])
    assert first.metadata["width"] == 12 and first.features is not None


def test_arrays_are_read_as_those_of_a_file(client: TestClient, store: Store) -> None:
    array = np.random.default_rng(4).integers(0, 256, (3, *SHAPE[:2]), np.uint8)
    champion = champion_predictions.current(store, NAME)
    told = champion_predictions.predict_array(store, NAME, champion, array)
    served = client.post(URL, json={"examples": [{"array": each.tolist()} for each in array]}).json()
    for row, expected in zip(served["predictions"], told, strict=True):
        same(row, expected)
    tensor = {"name": "x", "datatype": "UINT8", "shape": list(array.shape), "data": array.ravel().tolist()}
    reply = client.post(f"/v2/models/{NAME}/infer", json={"id": "mine", "inputs": [tensor]}).json()
    outputs = {each["name"]: each for each in reply["outputs"]}
    assert (reply["id"], reply["model_version"]) == ("mine", "one")
    assert outputs["label"]["data"] == [each["label"] for each in told]
    assert outputs["outputs"]["shape"] == [3, 2]
    np.testing.assert_allclose(outputs["probability"]["data"], [each["probability"] for each in told], atol=TOLERANCE)


def test_tensors_of_bytes_hold_one_example_each(client: TestClient, store: Store, tmp_path: Path) -> None:
    images = [png(5), png(6)]
    data = [base64.b64encode(image).decode() for image in images]
    tensor: dict[str, Any] = {"name": "x", "datatype": "BYTES", "shape": [2], "data": data}
    asked = {"inputs": [tensor], "outputs": [{"name": "label"}]}
    reply = client.post(f"/v2/models/{NAME}/versions/one/infer", json=asked).json()
    assert [each["name"] for each in reply["outputs"]] == ["label"]
    assert reply["outputs"][0]["data"] == [each["label"] for each in offline(store, tmp_path, images)]
    tensor["data"][1] = base64.b64encode(b"no image").decode()
    refused = client.post(f"/v2/models/{NAME}/infer", json={"inputs": [tensor]})
    assert refused.status_code == 422 and "example 1 " in refused.json()["line"]


def test_texts_are_predicted_as_predict_does() -> None:
    """In JSON, as a body, and as a tensor; one that says nothing has its reason in its place."""
    store = MemoryStore("memory://served-texts")
    served_champions.promote_texts(store, "one")
    config = served_champions.text_config()
    texts = ["rain and hail all day", "   ", "three goals before half time", "garlic, butter; simmer"]
    told = champion_predictions.predict_given(store, config.name, champion_predictions.current(store, config.name),
                                              texts, paths_first=False)  # fmt: skip
    assert [bool(row["error"]) for row in told] == [False, True, False, False]
    with TestClient(create_app(store, [config], Options(poll=0.05))) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        url = f"/v1/{config.name}/predict"
        answered = client.post(url, json={"examples": [texts[0], {"text": texts[1]}, *texts[2:]]}).json()["predictions"]
        for row, expected in zip(answered, told, strict=True):
            same(row, expected)
        same(client.post(url, content=texts[0].encode()).json()["predictions"][0], told[0])
        tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [texts[3]]}
        reply = client.post(f"/v2/models/{config.name}/infer", json={"inputs": [tensor]}).json()
        assert reply["outputs"][1]["data"] == [told[3]["label"]]
        assert client.post(url, json=[{"array": [[1, 2], [3, 4]]}]).status_code == 422


def test_ids_are_the_server_s(client: TestClient) -> None:
    """A client's own id is given back under another name, and only where it is a harmless one."""
    for given, back in (("mine-1", "mine-1"), ("a b", None), ("x" * 200, None), ('"><script>', None)):
        response = client.post(URL, content=png(1), headers={"x-request-id": given})
        assert REQUEST_ID.fullmatch(response.headers["x-request-id"])
        assert response.headers["x-request-id"] == response.json()["predictions"][0]["request_id"]
        assert response.headers.get("x-client-request-id") == back


WRONG = {
    "no JSON": (400, b"{", "application/json"),
    "deep": (400, b"[" * 100_000, "application/json"),
    "no examples": (400, b'{"examples": []}', "application/json"),
    "a number": (400, b"7", "application/json"),
    "not UTF-8": (400, b'["\xff"]', "application/json"),
    "a huge number": (422, b'[{"array": [[1e999, 1], [2, 3]]}]', "application/json"),
    "a very long number": (400, b'[{"array": [[' + b"9" * 5000 + b"]]}]", "application/json"),
    "ragged": (422, b'[{"array": [[1, 2], [3]]}]', "application/json"),
    "objects": (422, b'[{"array": [[{}, {}], [{}, {}]]}]', "application/json"),
    "two keys": (422, b'[{"text": "a", "base64": "b"}]', "application/json"),
    "no base64": (422, b'["%%%"]', "application/json"),
    "a text": (422, b'[{"text": "a"}]', "application/json"),
    "too many": (413, b"[" + b"1," * 8 + b"1]", "application/json"),
    "no boundary": (400, b"x", "multipart/form-data"),
    "no form": (400, b"x", "multipart/form-data; boundary=b"),
    "a form of nothing": (400, b"--b--\r\n", "multipart/form-data; boundary=b"),
    "XML": (415, b"<a/>", "application/xml"),
    "no image": (422, b"no image", "image/png"),
    "nothing": (422, b"", "image/png"),
    "too large": (413, b"x" * 1_000_001, "image/png"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_body_is_told_in_one_line(client: TestClient, case: str) -> None:
    status, body, kind = WRONG[case]
    response = client.post(URL, content=body, headers={"content-type": kind})
    assert response.status_code == status, response.text
    document = response.json()
    assert document["error"]["message"] and "\n" not in document["line"]
    assert "Traceback" not in response.text
    assert client.post(URL, content=png(1)).status_code == 200


TENSORS: dict[str, tuple[int, Any]] = {
    "no inputs": (400, {}),
    "a list": (400, []),
    "lies about its shape": (400, {"datatype": "UINT8", "shape": [1, 12, 12], "data": [1, 2, 3]}),
    "a shape of texts": (400, {"datatype": "UINT8", "shape": ["1"], "data": [1]}),
    "a negative shape": (400, {"datatype": "UINT8", "shape": [-1, 1, 1], "data": [1]}),
    "a vast shape": (413, {"datatype": "UINT8", "shape": [2**30, 2**30], "data": [1]}),
    "a vast image": (400, {"datatype": "UINT8", "shape": [1, 2**30, 2**30], "data": [1]}),
    "many axes": (400, {"datatype": "UINT8", "shape": [1] * 40, "data": [1]}),
    "values beyond its type": (400, {"datatype": "UINT8", "shape": [1, 2, 2], "data": [1, 2, 3, 256]}),
    "fractions as whole numbers": (400, {"datatype": "UINT8", "shape": [1, 1, 2], "data": [1.5, 2]}),
    "texts as numbers": (400, {"datatype": "UINT8", "shape": [1, 1, 1], "data": ["7"]}),
    "no such type": (400, {"datatype": "COMPLEX", "shape": [1], "data": [1]}),
    "numbers as bytes": (400, {"datatype": "BYTES", "shape": [1], "data": [1]}),
    "no rows": (400, {"datatype": "BYTES", "shape": [0], "data": []}),
    "a binary tensor": (400, {"datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 3}}),
    "another rank": (422, {"datatype": "UINT8", "shape": [1, 4], "data": [1, 2, 3, 4]}),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_wrong_tensor_is_told_in_one_line(client: TestClient, case: str) -> None:
    status, tensor = TENSORS[case]
    asked = {"inputs": [{"name": "x", **tensor}]} if tensor else tensor
    response = client.post(f"/v2/models/{NAME}/infer", json=asked)
    assert response.status_code == status, response.text
    document = response.json()
    assert document["error"] == document["line"] and document["details"]["message"]  # its clients want a string
    assert "Traceback" not in response.text


def test_a_model_or_a_decoder_that_fails_fails_its_own_examples(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The others of the batch are answered; the readiness says that the model gives no numbers."""
    app = create_app(store, [served_champions.config()], Options(poll=0.05))
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        service = app.state.services[NAME]
        good = service.canary()

        def broken(live: Any) -> Any:
            raise KeyError("a bug")

        first, second = service._predict([dataclasses.replace(good, look=broken), good])
        assert first.error == "it could not be examined: KeyError" and second.error is None

        def nothing(encoded: Any) -> Any:
            return np.full((len(encoded), 2), np.nan), None

        served = dataclasses.replace(service.live.served, _compute=nothing)
        service.live = dataclasses.replace(service.live, served=served)
        response = client.post(URL, content=png(1))
        assert response.status_code == 422 and "not a finite number" in response.json()["line"]
        assert client.get("/readyz").status_code == 503
        service.live = dataclasses.replace(service.live, served=dataclasses.replace(served, _compute=broken))
        failed = client.post(URL, content=png(1))
        assert failed.status_code == 500 and "a bug" not in failed.text and "a bug" in caplog.text
        assert f'requests_total{{pipeline="{NAME}",status="500",version=""}} 1.0' in client.get("/metrics").text


def test_a_json_of_too_many_values_is_not_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is answered while it is read."""
    monkeypatch.setattr(request_bodies, "MOST_MARKS", 1_000)
    for path in (URL, f"/v2/models/{NAME}/infer", f"/v1/{NAME}/labels"):
        for value in ([7], {"a": 7}, 7):
            response = client.post(path, json=[value] * 1_001)
            assert response.status_code == 413 and "too many values" in response.json()["line"]
    assert client.post(URL, json=["A" * 4_000]).status_code == 422  # it is no image, but one value


def test_a_packed_body_is_refused(client: TestClient) -> None:
    """What unpacks to gigabytes is never unpacked."""
    response = client.post(URL, content=b"x", headers={"content-encoding": "gzip"})
    assert response.status_code == 415 and response.headers["connection"] == "close"


def test_a_bomb_is_refused_from_its_header(client: TestClient) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    response = client.post(URL, content=bomb)
    assert response.status_code == 422 and "too-large" in response.json()["line"]


def test_a_name_from_outside_names_nothing(client: TestClient) -> None:
    for path in ("/v1/..%2f..%2fetc/predict", "/v1/nobody/predict", "/v1/%00/predict", "/v1/%0d%0aa:b/predict"):
        response = client.post(path, content=png(1))
        assert response.status_code == 404 and response.json()["line"]
    wrong = client.get(URL)
    assert wrong.status_code == 405 and "Expected: POST. Received: GET." in wrong.json()["line"]
    assert client.get("/v2/models/digits/versions/other").status_code == 404
    assert client.get("/nothing").json()["error"]["message"] == "Not Found"


def test_what_waits_to_be_decoded_is_bounded_too(store: Store) -> None:
    """Threads that decode something else: large examples fill the queue."""
    large, freed = png(1, size=200), threading.Event()
    app = create_app(store, [served_champions.config(queue=2)], Options(poll=0.05))
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        until(lambda: client.get("/readyz").status_code == 200)
        for _ in range(app.state.decoders._max_workers):
            app.state.decoders.submit(freed.wait, 30)
        kept = [pool.submit(client.post, URL, content=large) for _ in range(2)]
        until(lambda: app.state.services[NAME].batcher.waiting == 2)
        refused = client.post(URL, content=large)
        freed.set()
        assert refused.status_code == 429 and refused.headers["retry-after"]
        assert [each.result().status_code for each in kept] == [200, 200]
        assert client.post(URL, content=large).status_code == 200


def test_a_large_example_is_decoded_beside_the_queue(client: TestClient, store: Store, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    response = client.post(URL, content=buffer.getvalue())
    same(response.json()["predictions"][0], offline(store, tmp_path, [buffer.getvalue()])[0])


def test_metrics_are_told_while_every_thread_waits_for_a_slow_store(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed, waiting = threading.Event(), threading.Semaphore(0)

    async def threads(count: int) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = count

    def slow(_: Store) -> list[str]:
        waiting.release()
        assert freed.wait(30)
        return []

    monkeypatch.setattr(stored_pipelines, "names", slow)
    assert client.portal is not None
    client.portal.call(threads, 2)
    with ThreadPoolExecutor() as pool:
        pages = [pool.submit(client.get, "/") for _ in range(2)]
        try:
            assert all(waiting.acquire(timeout=30) for _ in range(2))
            assert pool.submit(client.get, "/metrics").result(10).status_code == 200
        finally:
            freed.set()
            client.portal.call(threads, 40)  # as by default
        assert {page.result().status_code for page in pages} == {200}


def test_metrics_count_requests_by_version_and_status(client: TestClient) -> None:
    client.post(URL, content=png(1))
    text = client.get("/metrics").text
    assert f'leptonflow_requests_total{{pipeline="{NAME}",status="200",version="one"}}' in text
    assert f'leptonflow_served_info{{pipeline="{NAME}",runtime=' in text
    assert f'leptonflow_champion_info{{pipeline="{NAME}",version="one"}} 1.0' in text
    assert f'leptonflow_serves_champion{{pipeline="{NAME}"}} 1.0' in text
    log = ("log_rows_waiting 3.0", "log_rows_dropped_total")
    for name in ("request_seconds_bucket", "batch_examples_bucket", "queue_examples", *log):
        assert f"leptonflow_{name}" in text


def test_what_is_served_is_told(client: TestClient) -> None:
    (row,) = client.get("/v1").json()["pipelines"]
    assert (row["version"], row["champion"], row["problem"]) == ("one", "one", None)
    assert client.get(f"/v2/models/{NAME}").json()["versions"] == ["one"]
    assert client.get(f"/v2/models/{NAME}/ready").json()["ready"] is True
    assert client.get("/v2/health/live").json() == {"live": True}
    assert URL.replace(NAME, "{pipeline}") in client.get("/docs").text
    assert set(client.get("/openapi.json").json()["paths"]) > {"/v1/{pipeline}/predict", "/v2/models/{pipeline}/infer"}


def test_a_key_opens_what_is_not_a_probe(store: Store) -> None:
    from serving import api_keys

    key, entry = api_keys.new("alice")
    keys = api_keys.configured({api_keys.VARIABLE: entry})
    app = create_app(store, [served_champions.config()], Options(Rules(keys, None), poll=0.05))
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/readyz").json() == client.get("/v2/health/ready").json() == {"ready": True}
        assert client.get("/readyz", headers={"x-api-key": key}).json()["pipelines"][0]["version"] == "one"
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": entry}, {"authorization": f"Basic {key}"}):
            response = client.post(URL, content=png(1), headers=headers)
            assert response.status_code == 401 and key not in response.text
            assert client.get("/metrics", headers=headers).status_code == 401
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert client.post(URL, content=png(1), headers=headers).status_code == 200
            assert client.get("/metrics", headers=headers).status_code == 200


def test_a_key_that_is_taken_out_of_the_file_opens_nothing_any_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import api_keys

    told: list[str] = []
    (first, entry), (second, other) = api_keys.new("alice"), api_keys.new("bob")
    file, new = tmp_path / "keys", tmp_path / "new"
    file.write_text(entry)
    monkeypatch.setenv(api_keys.FILE, str(file))
    monkeypatch.setattr(api_keys, "FOLLOW", 0.01)
    options = Options(Rules(api_keys.configured(), None), poll=0.05, say=told.append)
    with TestClient(create_app(store, [served_champions.config()], options)) as client:

        def opens(key: str) -> bool:
            return client.get("/v1", headers={"x-api-key": key}).status_code == 200

        assert opens(first) and not opens(second)
        for text, words in (("", "there are no API keys"), ("alice:no-hash", "entry 1 of LEPTONFLOW_API_KEYS_FILE")):
            new.write_text(text)
            new.replace(file)
            until(lambda words=words: any(words in line for line in told))  # type: ignore[misc]
            assert opens(first) and client.get("/v1").status_code == 401
        new.write_text(other)
        new.replace(file)
        until(lambda: opens(second))
        assert not opens(first) and "the API keys are now those of bob" in told


def test_however_many_ask_for_the_readiness_one_prediction_is_made_at_a_time(store: MemoryStore) -> None:
    """It needs no key: it must not take the queue's places from those who have one."""
    app = create_app(store, [served_champions.config()], Options(poll=0.05))
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        service, sizes, free = app.state.services[NAME], [], threading.Event()
        predict = service.batcher._predict

        def slow(asked: list[Any]) -> Any:
            sizes.append(len(asked) + service.batcher.waiting)
            assert free.wait(30)
            return predict(asked)

        service.batcher._predict = slow
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(client.get, "/readyz") for _ in range(8)]
            until(lambda: len(sizes) > 0)
            time.sleep(0.1)
            assert (sizes, service.batcher.waiting) == ([1], 0)
            free.set()
            assert [answer.result().status_code for answer in answers] == [200] * 8


def test_a_server_of_this_machine_answers_to_its_own_name_alone(store: Store) -> None:
    """A page that a browser shows could lead a name of its own here."""
    from serving import running

    app = create_app(store, [served_champions.config()], Options(running.rules("127.0.0.1", {}, False)))
    with TestClient(app) as client:
        assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
        for host in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
            assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_a_page_of_another_server_posts_nothing(store: Store) -> None:
    """A browser sends it: a form needs no CORS, and what it posts would be in the prediction log."""
    from serving import api_keys, running

    key, entry = api_keys.new("alice")
    login = {"authorization": f"Basic {base64.b64encode(f'x:{key}'.encode()).decode()}"}
    cases: tuple[tuple[str, dict[str, str], int], ...] = (
        ("", {}, 403), (entry, login, 403), (entry, {"x-api-key": key}, 200),  # a key in a header is a script's own
    )  # fmt: skip
    for entries, headers, status in cases:
        rules = running.rules("127.0.0.1", api_keys.configured({api_keys.VARIABLE: entries}), False)
        app = create_app(store, [served_champions.config()], Options(rules, poll=0.05))
        with TestClient(app, base_url="http://127.0.0.1") as client:
            until(lambda client=client: client.get("/readyz").status_code == 200)  # type: ignore[misc]
            for site, expected in (("cross-site", status), ("same-site", status), ("same-origin", 200), ("none", 200)):
                told = client.post(URL, content=png(1), headers={**headers, "sec-fetch-site": site})
                assert told.status_code == expected, (entries, site, told.text)
            assert client.get("/v1", headers={**headers, "sec-fetch-site": "cross-site"}).status_code == 200


def test_a_version_that_is_pinned_is_served_and_recorded(store: MemoryStore, models: list[Any]) -> None:
    served_champions.promote(store, "two", models[1])
    pin = serving_decisions.checked("one", "alice", "two is slow")
    for _ in range(2):  # a second server of the same decision
        said: list[str] = []
        app = create_app(store, [served_champions.config()], Options(pin=pin, poll=0.05, say=said.append))
        with TestClient(app) as client:
            until(lambda client=client: client.get("/readyz").status_code == 200)  # type: ignore[misc]
            assert client.post(URL, content=png(1)).json()["version"] == "one"
            assert said[0].endswith("; it is pinned, the champion is two")
            text = client.get("/metrics").text
            assert f'leptonflow_serves_champion{{pipeline="{NAME}"}} 0.0' in text
            assert f'leptonflow_pinned{{pipeline="{NAME}"}} 1.0' in text
    (row,) = serving_decisions.history(store, NAME)
    assert (row["version"], row["champion"], row["who"], row["reason"]) == ("one", "two", "alice", "two is slow")
    champion = champion_log.champion(champion_log.promotions(store, NAME))
    assert champion is not None and champion.version == "two"


def test_a_store_that_is_away_is_told_until_it_is_there(tmp_path: Path, models: list[Any]) -> None:
    store = DirectoryStore((tmp_path / "store").as_uri())
    app = create_app(store, [served_champions.config()], Options(poll=0.05))
    with TestClient(app) as client:
        until(lambda: "no store" in client.get("/readyz").text)
        response = client.post(URL, content=png(1))
        assert response.status_code == 503 and "no store" in response.json()["line"]
        assert response.headers["retry-after"]
        assert client.get(f"/v2/models/{NAME}/ready").status_code == 503
        served_champions.promote(store, "one", models[0])
        until(lambda: client.get("/readyz").status_code == 200)
        (tmp_path / "store").rename(tmp_path / "away")
        until(lambda: client.get("/v1").json()["pipelines"][0]["store"] is not None)
        assert client.post(URL, content=png(1)).status_code == 200
        assert client.get("/readyz").status_code == 200
        (tmp_path / "away").rename(tmp_path / "store")
        until(lambda: client.get("/v1").json()["pipelines"][0]["store"] is None)


def test_an_s3_server_that_is_away_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with s3.patient(0.1):
        store = open_store("s3://bucket/prefix")
    with TestClient(create_app(store, [served_champions.config()], Options(poll=0.05))) as client:
        until(lambda: "connection refused" in client.get("/readyz").text)
        response = client.post(URL, content=png(1))
        assert response.status_code == 503 and "connection refused" in response.json()["line"]
        assert "hidden" not in response.text


def test_it_says_which_parts_of_an_example_mattered(client: TestClient) -> None:
    rows = client.post(f"{URL}?explain=1", files=[("file", ("a.png", png(1))), ("file", ("b.png", b"none"))]).json()
    good, bad = rows["predictions"]
    assert len(good["explanation"]["patches"]) == 9 and good["explanation"]["overlay"].startswith("data:image/png")
    assert bad["error"] and bad["explanation"] is None
    plain = client.post(URL, content=png(1), headers={"content-type": "image/png"}).json()["predictions"][0]
    assert "explanation" not in plain and plain["probability"] == pytest.approx(good["probability"], abs=TOLERANCE)
    many = client.post(f"{URL}?explain=1", files=[("file", (f"{n}.png", png(n))) for n in range(5)])
    assert many.status_code == 422 and "at most 4" in many.json()["line"]


def test_the_board_of_a_server_of_predictions_reads_the_runs_once_the_champion_is_loaded(models: list[Any]) -> None:
    seen: list[bool] = []
    apps: list[Any] = []
    key = f"runs/{NAME}/{'a' * 12}/manifest.json"

    class Told(MemoryStore):
        def get(self, wanted: str) -> bytes:
            if wanted == key:
                seen.append(apps[0].state.services[NAME].live is not None)
            return super().get(wanted)

    store = Told("memory://warm")
    served_champions.promote(store, "one", models[0])
    store.create(key, b"{}")
    apps.append(create_app(store, [served_champions.config()], Options(poll=0.05)))
    with TestClient(apps[0]):
        until(lambda: bool(seen))
    assert all(seen)
