"""A run that waits is decided on the board: by the holder of a key, from a page of the server itself, once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from starlette.testclient import TestClient

from leptonflow.registry import champion_log, serving_decisions
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from serving import api_keys, running
from serving.access import PAGES
from serving.app import Options, create_app
from tests.run_examples import HOSTILE
from tests.unit.test_approval import waiting

KEY, ENTRY = api_keys.new("kim")
HOME = "http://127.0.0.1"


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def served(store: Store, config: Any, keys: str = ENTRY) -> TestClient:
    rules = running.rules("127.0.0.1", api_keys.configured({api_keys.VARIABLE: keys}), insecure=False, readable=PAGES)
    return TestClient(create_app(store, [config], Options(rules)), base_url=HOME)


def send(web: TestClient, run_id: str, origin: str | None = HOME, **fields: str) -> Any:
    form = {"key": KEY, "reason": "right on the floor", "decision": "approve", **fields}
    headers = {} if origin is None else {"Origin": origin}
    return web.post(f"/p/digits/runs/{run_id}/decision", data=form, headers=headers)


def champions(store: Store) -> list[tuple[str, str]]:
    return [(r["version"], r["who"]) for r in champion_log.history(champion_log.promotions(store, "digits"))]


def test_the_holder_of_a_key_approves_under_its_name(store: Store) -> None:
    config, verdict = waiting(store, people=["kim"])
    web = served(store, config)
    page = web.get("/p/digits").text
    assert "Waiting for approval" in page and f"/runs/{verdict.run_id}/decision" in page
    assert "needs attention" in web.get("/").text
    for origin in (None, "http://evil.test", "null"):
        assert send(web, verdict.run_id, origin).status_code == 403
    for wrong in ("", "no such key", ENTRY):
        assert send(web, verdict.run_id, key=wrong).status_code == 403
    assert send(web, verdict.run_id, decision="promote").status_code == 400
    assert send(web, verdict.run_id, reason=" ").status_code == 409
    assert send(web, "0" * 12).status_code == 409
    assert champions(store) == []
    done = send(web, verdict.run_id)
    assert done.status_code == 200 and "promoted" in done.text
    assert champions(store) == [(verdict.version, "kim")]
    after = web.get("/p/digits").text
    assert "/decision" not in after and "promoted" in after


def test_a_run_is_rejected_with_a_reason_that_is_text(store: Store) -> None:
    config, verdict = waiting(store)
    web = served(store, config)
    done = send(web, verdict.run_id, decision="reject", reason=HOSTILE)
    assert done.status_code == 200 and "rejected" in done.text and "<script" not in done.text
    assert "<script" not in web.get("/p/digits").text
    assert champions(store) == []
    assert send(web, verdict.run_id).status_code == 409  # too late


def test_whoever_the_yaml_does_not_name_may_not_decide(store: Store) -> None:
    config, verdict = waiting(store, people=["ana"])
    refused = send(served(store, config), verdict.run_id)
    assert refused.status_code == 409 and "kim may not decide" in refused.text
    assert champions(store) == []


def test_who_has_no_key_learns_nothing_of_the_store_from_the_form(store: Store) -> None:
    config, verdict = waiting(store)
    web = served(store, config)
    for fields in ({"key": "wrong"}, {"decision": "promote"}):
        told = send(web, verdict.run_id, **fields)
        assert told.status_code in (400, 403) and store.uri not in told.text
    form = {"key": "wrong", "reason": "x", "decision": "approve"}
    assert web.post("/p/another/runs/x/decision", data=form, headers={"Origin": HOME}).status_code == 403
    assert send(web, verdict.run_id, reason="x" * 20_000).status_code == 413


def test_without_keys_there_is_no_form_but_the_command(store: Store) -> None:
    config, verdict = waiting(store)
    web = served(store, config, keys="")
    page = web.get("/p/digits").text
    assert "/decision" not in page and f"leptonflow approve digits {verdict.run_id}" in page
    assert send(web, verdict.run_id).status_code == 403
    assert champions(store) == []


def test_what_is_served_beside_the_champion_is_told(store: Store) -> None:
    config, verdict = waiting(store)
    web = served(store, config)
    send(web, verdict.run_id)
    serving_decisions.record(store, "digits", serving_decisions.Pin(verdict.version, "kim", "the new one is slow"))
    page = web.get("/p/digits").text
    assert "Served" in page and "nothing" in page  # nobody has started the server's watch
    assert "the new one is slow" in page
