"""The HTTP application without a server."""

from __future__ import annotations

from starlette.testclient import TestClient

from leptonflow.storage.memory_store import MemoryStore
from serving.app import create_app


def test_the_process_says_that_it_runs() -> None:
    with TestClient(create_app(MemoryStore("memory://serving"), [])) as client:
        assert client.get("/healthz").text == "ok\n"
