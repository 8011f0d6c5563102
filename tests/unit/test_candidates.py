"""A candidate beside the champion: who answers which request, what is logged, and that it harms no answer."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from leptonflow.core.hashing import canonical
from leptonflow.storage.memory_store import MemoryStore
from schemas.approvals import ApprovalRequest
from schemas.config import parse
from schemas.errors import ConfigurationError, StoreUnreachable
from schemas.served import Served, canary_chosen, new_request_id
from serving import live_models
from serving.app import Options, create_app
from serving.candidates import Candidates
from serving.service import LiveCandidate, Service
from tests import served_champions, small_packages
from tests.served_champions import NAME, SHAPE, png, until

URL = f"/v1/{NAME}/predict"


class Kept:
    dropped = waiting = 0

    def __init__(self) -> None:
        self.rows: list[Served] = []

    def add(self, row: Served) -> None:
        self.rows.append(row)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """A champion `one`, and a version `two` that is none."""
    store = MemoryStore("memory://candidates")
    served_champions.promote(store, "one", served_champions.model(1))
    small_packages.put_model(store, "two", served_champions.model(2), SHAPE)
    return store


@pytest.fixture(scope="module")
def served(store: MemoryStore) -> Iterator[tuple[TestClient, Service, Kept]]:
    log = Kept()
    app = create_app(store, [served_champions.config()], Options(poll=0.05), log)
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client, app.state.services[NAME], log


def answered(client: TestClient, log: Kept, requests: int) -> list[tuple[str, str, list[tuple[str, bool]]]]:
    """(request id, version that answered, (version, shadow) of each row) of some requests."""
    log.rows.clear()
    kind = {"content-type": "image/png"}
    responses = [client.post(URL, content=png(number), headers=kind) for number in range(requests)]
    assert {each.status_code for each in responses} == {200}
    found = []
    for response in responses:
        id = response.headers["x-request-id"]
        rows = [(row.version, row.shadow) for row in log.rows if row.request_id == id]
        found.append((id, response.headers["x-model-version"], rows))
    return found


def test_a_shadow_predicts_every_request_and_answers_none(
    served: tuple[TestClient, Service, Kept], store: MemoryStore
) -> None:
    client, service, log = served
    service.beside = LiveCandidate(live_models.load(store, service.config, "two", None), 0.0, all=True)
    for _, version, rows in answered(client, log, 8):
        assert (version, rows) == ("one", [("one", False), ("two", True)])
    assert client.get(f"/v1/{NAME}").json()["candidate"] == "two"
    assert 'leptonflow_candidate_info{pipeline="digits",share="0",version="two"} 1.0' in client.get("/metrics").text


def test_a_canary_answers_its_share_by_the_ids_and_the_champion_predicts_the_same_requests(
    served: tuple[TestClient, Service, Kept], store: MemoryStore
) -> None:
    client, service, log = served
    service.beside = LiveCandidate(live_models.load(store, service.config, "two", None), 0.5, all=False)
    found = answered(client, log, 40)
    for id, version, rows in found:
        chosen = canary_chosen(id, 0.5)
        assert version == ("two" if chosen else "one")
        assert rows == ([("two", False), ("one", True)] if chosen else [("one", False)])
    assert {version for _, version, _ in found} == {"one", "two"}


def test_the_share_is_that_of_all_ids() -> None:
    ids = [new_request_id() for _ in range(20_000)]
    for share in (0.0, 0.05, 0.5):
        assert sum(canary_chosen(id, share) for id in ids) / len(ids) == pytest.approx(share, abs=0.02)


def test_a_candidate_that_fails_is_left_out_and_the_champion_answers(
    served: tuple[TestClient, Service, Kept], store: MemoryStore
) -> None:
    client, service, log = served
    other = live_models.load(store, service.config, "two", None)

    def broken(*_: Any) -> Any:
        raise RuntimeError("secret of the model")

    service.beside = LiveCandidate(other, 0.5, all=True)
    object.__setattr__(other, "predict", broken)
    for _, version, rows in answered(client, log, 3):
        assert (version, rows) == ("one", [("one", False)])
    assert service.beside is None
    assert client.get(f"/v1/{NAME}").json()["problem"] == "two failed: RuntimeError"


def test_a_candidate_that_cannot_be_loaded_predicts_nothing_and_is_told_of_once(store: MemoryStore) -> None:
    said: list[str] = []
    other = MemoryStore("memory://others")
    served_champions.promote(other, "one", served_champions.model(1))
    service = Service(served_champions.config(shadow="candidate"))
    service.live = live_models.load(other, service.config, "one", None)
    candidates = Candidates(other, [service], said.append)
    candidates._newest = lambda _: "gone"  # type: ignore[method-assign, assignment]
    candidates._look(service, decide=False)
    candidates._look(service, decide=False)
    assert service.beside is None and "gone" in (service.problem_beside or "")
    assert len(said) == 1 and said[0].startswith(f"{NAME}: no candidate predicts: ")


RULE = {"rule": "at_least", "metric": "accuracy", "value": 0.9}


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"canary": {"share": 0.9, "promote_after": 100}}, r"serving\.canary\.share"),
        ({"canary": {"share": 0.1, "promote_after": 1}}, r"serving\.canary\.promote_after"),
        ({"canary": {"share": 0.1, "promote_after": 100, "timeout": "soon"}}, r"serving\.canary\.timeout.*a duration"),
        ({"shadow": "one"}, r"serving\.shadow"),
    ],
)
def test_a_wrong_section_names_the_key(section: dict[str, Any], told: str) -> None:
    base = {"name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": [RULE]}
    with pytest.raises(ConfigurationError, match=told):
        parse({**base, "serving": section}, where="digits.yaml", folder=Path())


def test_one_decides_about_a_candidate_people_or_a_canary() -> None:
    base = {"name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": [RULE]}
    canary = {"share": 0.05, "promote_after": 200}
    found = parse({**base, "serving": {"canary": canary}}, where="digits.yaml", folder=Path())
    assert found.waits == 7 * 86400 and parse(base, where="digits.yaml", folder=Path()).waits is None
    with pytest.raises(ConfigurationError, match=r"serving\.canary.*either `promotion`"):
        parse({**base, "serving": {"canary": canary}, "promotion": {"approve": "none"}}, where="x.yaml", folder=Path())


class Away(MemoryStore):
    """A store of which nothing can be read while it is away; its listings answer."""

    away = False

    def get(self, key: str) -> bytes:
        if self.away:
            raise StoreUnreachable("the store is away")
        return super().get(key)


def looking(store: MemoryStore, said: list[str]) -> tuple[Service, Candidates]:
    """A service of the champion `one`, whose candidate is `two` by now."""
    service = Service(served_champions.config(shadow="candidate"))
    service.live = live_models.load(store, service.config, "one", None)
    candidates = Candidates(store, [service], said.append)
    candidates._newest = lambda _: "two"  # type: ignore[method-assign, assignment]
    return service, candidates


def test_a_store_that_is_away_for_a_moment_costs_no_candidate_and_leaves_no_problem() -> None:
    said: list[str] = []
    store = Away("memory://away")
    served_champions.promote(store, "one", served_champions.model(1))
    small_packages.put_model(store, "two", served_champions.model(2), SHAPE)
    service, candidates = looking(store, said)
    store.away = True
    candidates._look(service, decide=False)
    assert service.beside is None and service.problem_beside == "the store is away."
    store.away = False
    candidates._look(service, decide=False)
    assert service.beside is not None and service.beside.live.version == "two" and service.problem_beside is None

    def away(_: Service) -> str | None:
        raise StoreUnreachable("the store is away")

    candidates._newest = away  # type: ignore[method-assign, assignment]
    candidates._look(service, decide=False)
    assert service.beside is not None and service.problem_beside == "the store is away."
    candidates._newest = lambda _: "two"  # type: ignore[method-assign, assignment]
    candidates._look(service, decide=False)
    assert service.problem_beside is None


def test_a_candidate_that_ends_the_process_ends_neither_a_thread_nor_an_answer(
    served: tuple[TestClient, Service, Kept], store: MemoryStore
) -> None:
    client, service, log = served

    def ends(*_: Any) -> Any:
        raise SystemExit(3)

    other = live_models.load(store, service.config, "two", None)
    object.__setattr__(other, "predict", ends)
    service.beside = LiveCandidate(other, 0.5, all=True)
    for _, version, rows in answered(client, log, 2):
        assert (version, rows) == ("one", [("one", False)])
    assert service.problem_beside == "two failed: SystemExit"
    own, candidates = looking(store, [])
    candidates._newest = ends  # type: ignore[method-assign, assignment]
    candidates._look(own, decide=False)
    assert own.problem_beside == "SystemExit: 3"


def test_a_candidate_that_has_just_become_the_champion_is_no_candidate(
    served: tuple[TestClient, Service, Kept], store: MemoryStore
) -> None:
    client, service, log = served
    service.beside = LiveCandidate(live_models.load(store, service.config, "one", None), 0.5, all=True)
    for _, version, rows in answered(client, log, 4):
        assert (version, rows) == ("one", [("one", False)])
    service.beside = None


def test_what_is_recorded_of_approvals_is_read_again_only_where_there_is_more(store: MemoryStore) -> None:
    counted: list[str] = []

    class Counting(MemoryStore):
        def get_many(self, keys: Any) -> Any:
            counted.extend(key for key in keys if key.startswith("approvals/"))
            return super().get_many(keys)

    other = Counting("memory://approvals")
    served_champions.promote(other, "one", served_champions.model(1))
    asked = ApprovalRequest(
        pipeline=NAME, run_id="a" * 12, version="two", number=1, snapshot_number=1, against=1, champion="one",
        configuration="c", sentence="s", at="2026-01-01T00:00:00Z", expires_at="2026-01-02T00:00:00Z", labels=10,
    )  # fmt: skip
    other.create(f"approvals/{NAME}/{asked.run_id}/request.json", canonical(asked))
    service = Service(served_champions.config(canary={"share": 0.1, "promote_after": 10}))
    service.live = live_models.load(other, service.config, "one", None)
    candidates = Candidates(other, [service], lambda _: None)
    for _ in range(3):  # the first records that the time is over, and the second finds nothing left to decide
        candidates._look(service, decide=True)
    assert service.problem_beside is None and other.size(f"approvals/{NAME}/{asked.run_id}/decision.json")
    counted.clear()
    candidates._look(service, decide=False)
    assert not counted
    candidates._decided(service)
    assert not counted, "a canary that ended is not evaluated again and again"


class Model:
    """As Keras' models do, it holds itself: only a collection of garbage frees it."""

    def __init__(self) -> None:
        self.model = self


def test_a_candidate_that_is_replaced_or_taken_back_leaves_no_model_in_memory(
    served: tuple[TestClient, Service, Kept], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, models = Service(served_champions.config(shadow="candidate")), list[Any]()
    live = service.live = served[1].live
    assert live is not None

    def loaded(store: Any, config: Any, version: str, sha256: Any) -> Any:
        assert not any(each() for each in models), "the model before is freed before the next one is loaded"
        model = Model()
        models.append(weakref.ref(model))
        manifest = live.served.manifest.model_copy(update={"version": version})
        return dataclasses.replace(
            live,
            served=dataclasses.replace(live.served, manifest=manifest, _compute=model),  # type: ignore[arg-type]
        )

    candidates = Candidates(store, [service], lambda _: None)
    monkeypatch.setattr(live_models, "load", loaded)
    gc.disable()  # none but its own
    try:
        for version in ("two", "four", None):
            monkeypatch.setattr(candidates, "_newest", lambda _, version=version: version)
            candidates._look(service, decide=False)
            beside = service.beside.live.version if service.beside else None
            assert beside == version and (models[-1]() is not None) == (version is not None)
    finally:
        gc.enable()


def test_a_candidate_that_takes_other_inputs_than_a_new_champion_predicts_no_more(store: MemoryStore) -> None:
    service, candidates = looking(store, [])
    candidates._look(service, decide=False)
    assert service.beside is not None and service.live is not None
    manifest = service.live.served.manifest.model_copy(update={"version": "three", "input": (8, 8, 1)})
    live = dataclasses.replace(service.live, served=dataclasses.replace(service.live.served, manifest=manifest))
    service.live = live
    candidates._look(service, decide=False)
    assert service.beside is None and service.problem_beside == "two takes other inputs than three."
