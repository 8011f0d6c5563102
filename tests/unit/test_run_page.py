"""The progress artifact of a run, written by a thread beside the training."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from flows import run_page


class Client:
    """A client whose server holds every answer back until it is let go."""

    def __init__(self) -> None:
        self.asked, self.let_go, self.closed = threading.Event(), threading.Event(), False
        self.inner = httpx.Client(trust_env=False)

    def create_artifact(self, artifact: Any) -> Any:
        self.asked.set()
        assert self.let_go.wait(10)
        self.inner.get("http://127.0.0.1:9/")  # as Prefect's client: through httpx, which knows that it is closed
        raise AssertionError("nobody listens on the port")


def moving(client: Client) -> run_page.Moving:
    page = SimpleNamespace(pipeline="p", client=client, log=logging.getLogger("test"), run=SimpleNamespace(id=None))
    page.create = client.create_artifact
    return run_page.Moving(page, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("ended", [True, False])
def test_a_client_that_is_closed_at_the_runs_end_is_no_error(ended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is not waited for, so the thread may come to a client that is closed by then."""
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    monkeypatch.setattr(run_page, "LAST_WORD", 0.01)
    client = Client()
    found = moving(client)
    found.report("fold 1", 1, 2)
    assert client.asked.wait(10)
    if ended:
        found.close()
    client.inner.close()
    client.let_go.set()
    assert found._thread is not None
    found._thread.join(10)
    assert not found._thread.is_alive()
    assert bool(told) is not ended, "before the end it is a mistake of ours"


def test_a_report_is_linked_on_the_board_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    page: Any = SimpleNamespace(
        pipeline="digits", log=logging.getLogger("test"), client=SimpleNamespace(api_url="http://127.0.0.1:9/api")
    )
    monkeypatch.setenv("LEPTONFLOW_BOARD_URL", "https://board.example.com/")
    found = run_page.Page.report_address(page, "ab" * 6)
    assert found == f"https://board.example.com/p/digits/runs/{'ab' * 6}/report.html"
    assert run_page.Page.report_address(page, None) is None
    monkeypatch.setenv("LEPTONFLOW_BOARD_URL", "javascript:alert(1)")
    assert run_page.Page.report_address(page, "ab" * 6) is None
