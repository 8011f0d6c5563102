"""A run that waits for a person: what is recorded, who may decide, and what comes of it in each case."""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cli import main
from leptonflow.core import clock
from leptonflow.core.hashing import canonical
from leptonflow.evaluation import load_check
from leptonflow.registry import champion_log
from leptonflow.runs import approval, approvals, canary, pipeline_status, recording, run_explanation, unchanged
from leptonflow.runs.approvals import standing
from leptonflow.runs.live_evidence import Labelled
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.memory_store import MemoryStore
from leptonflow.storage.store import Store
from leptonflow.tables import table_sources
from schemas.approvals import ApprovalDecision, ApprovalRequest
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError, LeptonflowError, NotFound, UsageError
from schemas.records import Verdict
from tests import run_examples
from tests.e2e.helpers import call
from tests.verdicts import promoted_by_hand

SOON, LATE = "2026-11-25T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"
NOW = clock.now()
DAY = 86400


def of_yaml(**section: Any) -> Any:
    rule = {"rule": "at_least", "metric": "accuracy", "value": 0.9}
    base = {"name": "digits", "workload": "image_classification", "input": [28, 28, 1], "gate": [rule]}
    return parse({**base, **section}, where="digits.yaml", folder=Path())


# --- the YAML ------------------------------------------------------------------------------------


def test_the_section_takes_people_or_none_and_a_duration() -> None:
    assert of_yaml().promotion is None
    for nobody in (None, "none", []):
        assert of_yaml(promotion={"approve": nobody}).promotion.approve == ()
    found = of_yaml(promotion={"approve": ["ana", "bo"], "timeout": "90m"}).promotion
    assert (found.approve, found.timeout) == (("ana", "bo"), 5400)
    assert of_yaml(promotion={"approve": "none"}).promotion.timeout == 3 * DAY
    assert of_yaml(promotion={"approve": "none", "timeout": 60}).promotion.timeout == 60


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"approve": "ana"}, r"promotion\.approve is not valid.*a list of the names"),
        ({"approve": [""]}, r"promotion\.approve\.0 is not valid"),
        ({"timeout": "3d"}, r"promotion\.approve is missing"),
        ({"aprove": "none"}, r"unknown key promotion\.aprove.*Did you mean approve"),
        ({"approve": "none", "timeout": "soon"}, r"promotion\.timeout is not valid.*a duration, such as 90m"),
        ({"approve": "none", "timeout": 0}, r"promotion\.timeout is not valid"),
        (
            {"approve": "none", "timeouts": "3d"},
            r"unknown key promotion\.timeouts.*one of approve, timeout.*mean timeout",
        ),
    ],
)
def test_a_wrong_section_names_the_key(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.compile(told)):
        of_yaml(promotion=section)


def test_it_is_in_no_id_and_no_document() -> None:
    with_it = of_yaml(promotion={"approve": ["ana"]})
    assert with_it.model_dump() == of_yaml().model_dump()


# --- where a run stands: pure --------------------------------------------------------------------


REQUEST = ApprovalRequest(
    pipeline="digits", run_id="r1", version="v1", number=1, snapshot_number=1, against=0, champion=None,
    configuration="c", sentence="waiting for approval", at="2026-11-24T10:00:00Z", expires_at=SOON,
)  # fmt: skip


def decided(outcome: Any) -> ApprovalDecision:
    return ApprovalDecision(
        pipeline="digits", run_id="r1", version="v1", outcome=outcome, who="ana", reason="fine", at=SOON,
        sentence=f"{outcome} by ana: fine", verdict=None,
    )  # fmt: skip


def test_where_a_run_stands_follows_from_its_records_and_the_time() -> None:
    newer = REQUEST.model_copy(update={"run_id": "r2"})
    at = "2026-11-24T23:59:59.999999Z"
    for found, state in (
        (standing(REQUEST, None, None, False, False, at), "waiting"),
        (standing(REQUEST, None, None, False, False, SOON), "expired"),
        (standing(REQUEST, None, newer, False, False, at), "superseded"),
        (standing(REQUEST, decided("rejected"), newer, False, False, LATE), "rejected"),
        (standing(REQUEST, decided("rejected"), None, True, False, LATE), "rejected"),  # and then made it by hand
        (standing(REQUEST, decided("approved"), None, False, False, LATE), "approved"),
        (standing(REQUEST, decided("approved"), None, True, True, LATE), "promoted"),
        (standing(REQUEST, decided("approved"), None, False, True, LATE), "refused"),
        (standing(REQUEST, None, None, True, False, LATE), "promoted"),
    ):
        assert found.state == state and found.sentence
    waits = standing(REQUEST, None, None, False, False, at).sentence
    assert "until 2026-11-25 00:00:00 UTC: `leptonflow approve digits r1`" in waits
    assert "`leptonflow reject digits r1 --reason" in waits
    assert approvals.passed(clock.after("2026-11-24T10:00:00.5Z", DAY), "2026-11-25T10:00:00.5Z")
    assert clock.after("2026-11-24T10:00:00.000000Z", 1e12).startswith("9999-12-31")


# --- on a store ----------------------------------------------------------------------------------


class Interrupted(MemoryStore):
    """A store that fails at the promotions log while `down`."""

    down = False

    def create(self, key: str, data: bytes) -> None:
        if self.down and key.startswith("promotions/"):
            raise KeyboardInterrupt
        super().create(key, data)


@pytest.fixture
def store() -> Interrupted:
    return Interrupted(f"memory://{uuid.uuid4().hex}")


def waiting(
    store: Store,
    number: int = 1,
    timeout: str | float = "3d",
    people: Any = "none",
    canary: bool = False,
    page: bytes | None = run_examples.PAGE,
) -> tuple[Pipeline, Verdict]:
    """A finished run whose candidate passed its gate, as a retraining leaves it; and the pass of its load check."""
    run = run_examples.make(store, version=f"a{number}" * 6, run_id=f"b{number}" * 6, seed=number, page=page)
    config = run.config.model_copy(
        update={"promotion": of_yaml(promotion={"approve": people, "timeout": timeout}).promotion}
    )
    if canary:
        section = of_yaml(serving={"canary": {"share": 0.1, "promote_after": 10}}).serving
        config = config.model_copy(update={"promotion": None, "serving": section})
    log = champion_log.promotions(store, "digits")
    champion = champion_log.champion(log)
    verdict = run.verdict.model_copy(
        update={"verdict": "waiting", "sentence": "waiting for approval to be the first champion: 3 of 3 rules passed",
                "against": log.number, "champion": champion.version if champion else None}
    )  # fmt: skip
    dataset = commit_log.read(store, "snapshots/digits/log")
    if not dataset.entries:
        snapshot = run.plan.snapshot
        assert snapshot is not None
        labels = dict.fromkeys(snapshot.classes, 1)
        body = {
            "batch": "first", "parts": [], "holdout": 0.2, "classes": list(snapshot.classes), "labels": labels,
            "snapshot": snapshot.snapshot, "content": snapshot.content, "preprocessing": snapshot.preprocessing,
            "examples": 1,
        }  # fmt: skip
        commit_log.commit(store, dataset, id="first", kind="batch", body=body, who="me", why="landed")
    settled, _ = champion_log.settle(store, run.plan, verdict, run.package.manifest_sha256)
    assert settled == verdict and champion_log.promotions(store, "digits").number == log.number
    results = run.results(verdict=verdict, champion_after=verdict.champion)
    document = recording.record(store, config, run.plan, results)
    assert (document["verdict"], document["approval"]["state"]) == ("waiting", "waiting")
    key = load_check.record_key("digits", run.manifest.version, run.package.manifest_sha256, config)
    store.create(key, load_check.document(run.infra))
    return config, verdict


def history(store: Store) -> list[tuple[str, str | None, str]]:
    return [
        (r["version"], r["run_id"], r["who"]) for r in champion_log.history(champion_log.promotions(store, "digits"))
    ]


def test_a_waiting_run_is_shown_and_promoted_once_it_is_approved(store: Interrupted) -> None:
    config, verdict = waiting(store, page=None)
    run_id, version = verdict.run_id, verdict.version
    status = pipeline_status.status(store, config)
    assert (status["champion"], status["approval"]["run_id"], status["last_run"]["verdict"]) == (
        None,
        run_id,
        "waiting",
    )
    again = unchanged.of_finished(store, run_examples.make(store, version=version, run_id=run_id, seed=1).plan)
    assert (again["verdict"], again["run_id"], again["approval"]["state"]) == ("waiting", run_id, "waiting")
    assert "waits for approval" in store.get(f"runs/digits/{run_id}/report.html").decode()
    told = run_explanation.explain(store, config, run_id)
    assert told["verdict"] == "waiting" and f"`leptonflow approve digits {run_id}`" in told["paragraph"]
    assert told["would_change"]  # as of a promoted run: what held

    document = approval.approve(store, config, run_id, "ana", "seen on the shop floor", NOW)
    assert (document["outcome"], document["champion"], document["who"]) == ("promoted", version, "ana")
    why = document["record"]["reason"]
    assert why.startswith("approved by ana: seen on the shop floor; its run was waiting for approval")
    assert history(store) == [(version, run_id, "ana")]
    assert pipeline_status.runs(store, config)[0]["verdict"] == "promoted"
    assert pipeline_status.status(store, config)["approval"] is None
    assert "Approval: approved by ana" in run_explanation.explain(store, config, run_id)["paragraph"]
    assert unchanged.of_finished(store, run_examples.make(store, version=version, run_id=run_id, seed=1).plan)[
        "verdict"
    ] == "unchanged"  # fmt: skip

    later = approval.approve(store, config, run_id, "bo", "", LATE)
    assert (later["outcome"], later["record"], later["who"]) == ("promoted", None, "ana")
    assert len(history(store)) == 1
    with pytest.raises(LeptonflowError, match=r"does not wait for approval any more.*promoted: approved by ana"):
        approval.reject(store, config, run_id, "bo", "too late", LATE)
    (row,) = table_sources.from_log(store, "approvals").to_pylist()  # type: ignore[union-attr]
    assert (row["outcome"], row["who"], row["version"]) == ("approved", "ana", version)


def test_a_rejected_run_is_not_promoted(store: Interrupted) -> None:
    config, verdict = waiting(store)
    with pytest.raises(UsageError, match="--reason is empty"):
        approval.reject(store, config, verdict.run_id, "ana", " ", NOW)
    assert approval.reject(store, config, verdict.run_id, "ana", "odd", NOW)["outcome"] == "rejected"
    for decide in (approval.approve, approval.reject):
        with pytest.raises(LeptonflowError, match=r"rejected: rejected by ana: odd.*promote digits --version a1a1"):
            decide(store, config, verdict.run_id, "bo", "no", NOW)
    assert history(store) == []
    told = unchanged.of_finished(store, run_examples.make(store, version="a1" * 6, run_id="b1" * 6, seed=1).plan)
    assert (told["verdict"], told["approval"]["state"]) == ("unchanged", "rejected")


def test_only_those_who_are_named_decide_and_only_about_a_run_that_waits(store: Interrupted) -> None:
    config, verdict = waiting(store, people=["ana", "bo@host"])
    for decide in (approval.approve, approval.reject):
        with pytest.raises(UsageError, match=r"eve may not decide.*one of ana, bo@host \(promotion\.approve"):
            decide(store, config, verdict.run_id, "eve", "please", NOW)
        with pytest.raises(NotFound, match=r"no run unknown of the pipeline digits waits.*the run b1b1"):
            decide(store, config, "unknown", "ana", "please", NOW)
    assert approval.approve(store, config, verdict.run_id, "bo@host", "", NOW)["outcome"] == "promoted"


def test_a_wait_expires_and_that_is_recorded_once(store: Interrupted) -> None:
    config, verdict = waiting(store, timeout="1d")
    assert approvals.pending(store, "digits", clock.now()) is not None
    assert approvals.every(store, "digits", LATE)[verdict.run_id].state == "expired"
    assert approvals.pending(store, "digits", LATE) is None
    assert not store.size(f"approvals/digits/{verdict.run_id}/decision.json")  # reading writes nothing
    with pytest.raises(LeptonflowError, match=r"expired: expired at [-\d]+ [:\d]+ UTC: nobody approved it in time"):
        approval.approve(store, config, verdict.run_id, "ana", "", LATE)
    recorded = store.get(f"approvals/digits/{verdict.run_id}/decision.json")
    with pytest.raises(LeptonflowError, match="expired"):  # also where a clock goes back
        approval.approve(store, config, verdict.run_id, "ana", "", NOW)
    assert store.get(f"approvals/digits/{verdict.run_id}/decision.json") == recorded and history(store) == []


def test_a_newer_run_that_waits_supersedes_the_one_before(store: Interrupted) -> None:
    config, first = waiting(store)
    _, second = waiting(store, 2)
    assert [each["verdict"] for each in pipeline_status.runs(store, config)] == ["superseded", "waiting"]
    with pytest.raises(LeptonflowError, match=f"superseded by run {second.run_id}"):
        approval.approve(store, config, first.run_id, "ana", "", NOW)
    assert pipeline_status.status(store, config)["approval"]["run_id"] == second.run_id
    assert approval.approve(store, config, second.run_id, "ana", "", NOW)["champion"] == second.version


def test_of_two_who_approve_at_once_one_does_and_both_are_told_who(store: Interrupted) -> None:
    config, verdict = waiting(store)

    def approve(who: str) -> str:
        document = approval.approve(store, config, verdict.run_id, who, "", NOW)
        assert document["outcome"] == "promoted"
        return str(document["who"])

    with ThreadPoolExecutor(4) as pool:
        told = set(pool.map(approve, ("ana", "bo", "cy", "di")))
    assert len(told) == 1 and history(store) == [(verdict.version, verdict.run_id, told.pop())]


def test_an_approval_that_was_interrupted_before_its_promotion_is_completed_by_whoever_comes_next(
    store: Interrupted,
) -> None:
    config, verdict = waiting(store)
    store.down = True
    with pytest.raises(KeyboardInterrupt):
        approval.approve(store, config, verdict.run_id, "ana", "fine", NOW)
    store.down = False
    assert history(store) == []
    told = pipeline_status.status(store, config)["approval"]
    assert told["state"] == "approved" and "the promotion was interrupted: `leptonflow approve" in told["sentence"]
    with pytest.raises(LeptonflowError, match="approved by ana: fine"):
        approval.reject(store, config, verdict.run_id, "bo", "no", NOW)
    completed = approval.approve(store, config, verdict.run_id, "bo", "", LATE)
    assert (completed["outcome"], completed["who"]) == ("promoted", "ana")
    assert history(store) == [(verdict.version, verdict.run_id, "ana")]


def test_what_the_run_does_not_know_of_is_not_decided_without_an_evaluation(store: Interrupted) -> None:
    config, verdict = waiting(store)
    other = config.model_copy(update={"gate": config.gate[:1]})
    with pytest.raises(LeptonflowError, match="the gate, the input or the model of digits is no longer that"):
        approval.approve(store, other, verdict.run_id, "ana", "", NOW)
    sha256 = run_examples.make(store, version="c" * 12, run_id="d" * 12, seed=9).package.manifest_sha256
    promoted_by_hand(store, "digits", "c" * 12, sha256)
    with pytest.raises(LeptonflowError, match=r"the promotions log has changed since the run.*this process loads no"):
        approval.approve(store, config, verdict.run_id, "ana", "", NOW, evaluates=False)
    assert approvals.pending(store, "digits", NOW) is not None  # it waits still


def test_a_version_that_a_person_promoted_meanwhile_waits_no_more(store: Interrupted) -> None:
    config, verdict = waiting(store)
    sha256 = run_examples.make(store, version=verdict.version, run_id=verdict.run_id, seed=1).package.manifest_sha256
    promoted_by_hand(store, "digits", verdict.version, sha256)
    assert approvals.pending(store, "digits", NOW) is None
    found = approval.approve(store, config, verdict.run_id, "ana", "", NOW)
    assert (found["outcome"], found["record"], found["champion"]) == ("promoted", None, verdict.version)


def test_the_commands_decide_as_the_person_who_types_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit statuses and the documents: promoted, too late, not the one who may."""
    place = open_store((tmp_path / "store").as_uri())
    config, verdict = waiting(place, people=["ana"])
    document = config.model_dump(mode="json", exclude_defaults=True) | {"promotion": {"approve": ["ana"]}}
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(document))
    given = (path, verdict.run_id, "--store", tmp_path / "store", "--json")
    monkeypatch.setenv("LEPTONFLOW_USER", "eve")
    assert call("approve", *given).status == call("reject", *given, "--reason", "no").status == 2
    monkeypatch.setenv("LEPTONFLOW_USER", "ana")
    shown = call("status", path, "--store", tmp_path / "store").out
    assert f"run {verdict.run_id} is waiting for approval until" in " ".join(shown.split())
    approved = call("approve", *given, "--reason", "fine")
    assert approved.status == 0 and approved.document["outcome"] == "promoted", approved.told()
    assert set(approved.document) == {
        "run_id", "version", "outcome", "champion", "record", "who", "reason", "at", "gate", "sentence",
    }  # fmt: skip
    late = call("reject", *given, "--reason", "no")
    assert late.status == 1 and "promoted: approved by ana: fine" in late.err
    assert main.VERDICT_STATUS["waiting"] == 5


class Mortal(MemoryStore):
    """A store whose process is killed before its n-th write."""

    left: int | None = None

    def create(self, key: str, data: bytes) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        super().create(key, data)


@pytest.mark.parametrize("writes", range(2))
def test_a_kill_before_any_write_of_an_approval_and_a_second_call_promote_once(writes: int) -> None:
    store = Mortal(f"memory://{uuid.uuid4().hex}")
    config, verdict = waiting(store)
    store.left = writes
    with pytest.raises(KeyboardInterrupt):
        approval.approve(store, config, verdict.run_id, "ana", "", NOW)
    store.left = None
    found = approval.approve(store, config, verdict.run_id, "bo", "", NOW)
    assert (found["outcome"], found["who"]) == ("promoted", "bo" if writes == 0 else "ana")
    assert len(history(store)) == 1


@pytest.mark.parametrize("writes", (0, 13, 14))  # the verdict, the request, the manifest
def test_a_kill_before_any_write_of_a_run_that_waits_leaves_one_request(writes: int) -> None:
    store = Mortal(f"memory://{uuid.uuid4().hex}")
    run = run_examples.make(store)
    config = run.config.model_copy(update={"promotion": of_yaml(promotion={"approve": "none"}).promotion})
    results = run.results(verdict=run.verdict.model_copy(update={"verdict": "waiting"}), champion_after=None)
    store.left = writes
    try:
        recording.record(store, config, run.plan, results)
    except KeyboardInterrupt:
        store.left = None
        assert recording.record(store, config, run.plan, results)["verdict"] == "waiting"
    (found,) = approvals.every(store, "digits", clock.now()).values()
    assert (found.state, found.request.run_id) == ("waiting", run.verdict.run_id)


class Racing(MemoryStore):
    """A store on which somebody promotes another version right before our record."""

    other: Any = None

    def create(self, key: str, data: bytes) -> None:
        other, self.other = (self.other, None) if key.startswith("promotions/") else (None, self.other)
        if other is not None:
            other()
        super().create(key, data)


def test_a_promotion_between_the_decision_and_its_record_is_decided_against_again() -> None:
    place = Racing(f"memory://{uuid.uuid4().hex}")
    config, verdict = waiting(place)
    sha256 = run_examples.make(place, version="c" * 12, run_id="d" * 12, seed=9).package.manifest_sha256
    place.other = lambda: promoted_by_hand(place, "digits", "c" * 12, sha256)
    with pytest.raises(LeptonflowError, match="this process loads no models"):
        approval.approve(place, config, verdict.run_id, "ana", "fine", NOW, evaluates=False)
    assert [version for version, _, _ in history(place)] == ["c" * 12]
    pending = approvals.pending(place, "digits", NOW)
    assert pending is not None and (pending.state, pending.who) == ("approved", "ana")
    # what the gate decides then: refused, which ends the wait although a person had approved it
    case = approval.case_of(place, config, pending)
    refused = verdict.model_copy(update={"verdict": "refused", "against": 1, "champion": "c" * 12})
    told = approval._refused(place, case, refused, "ana", "fine", NOW)
    assert (told["outcome"], told["champion"]) == ("refused", "c" * 12)
    assert approvals.pending(place, "digits", NOW) is None
    with pytest.raises(LeptonflowError, match="then another champion came, and the gate refused it"):
        approval.approve(place, config, verdict.run_id, "ana", "", NOW)


@pytest.mark.parametrize("who", [canary.WHO, "ana"])
def test_a_canary_whose_promotion_was_interrupted_waits_no_more_once_another_champion_came(
    store: Interrupted, who: str
) -> None:
    """Whoever approved it, and whatever the YAML says by now."""
    config, verdict = waiting(store, canary=True)
    if who == canary.WHO:
        live = verdict.model_copy(update={"verdict": "promoted"})
        store.create(f"approvals/digits/{verdict.run_id}/live.json", canonical(live))
    store.down = True
    with pytest.raises(KeyboardInterrupt):
        approval.approve(store, config, verdict.run_id, who, "labels", NOW, evaluates=False)
    store.down = False
    assert canary.waiting(store, config, NOW) == verdict.version
    sha256 = run_examples.make(store, version="c" * 12, run_id="d" * 12, seed=9).package.manifest_sha256
    promoted_by_hand(store, "digits", "c" * 12, sha256)
    config = config.model_copy(update={"gate": config.gate[:1]})
    for _ in range(2):
        found = canary.decide(store, config, NOW)
        assert (found["state"], found["version"]) == ("refused", verdict.version)
        assert "then another champion came" in found["sentence"]
    assert canary.waiting(store, config, NOW) is None


def test_a_canary_is_promoted_by_the_labels_that_its_verdict_is_about(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More may have come by the time an interrupted decision is completed."""
    config, verdict = waiting(store, canary=True)
    live = verdict.model_copy(update={"verdict": "promoted", "sentence": "on 200 labelled requests: promoted"})
    store.create(f"approvals/digits/{verdict.run_id}/live.json", canonical(live))
    rows = np.zeros((250, 2))
    monkeypatch.setattr(canary, "_labelled", lambda *_: Labelled(("0",) * 250, rows, rows, ()))
    assert canary.decide(store, config, NOW)["state"] == "promoted"
    assert approvals.every(store, "digits", NOW)[verdict.run_id].reason == live.sentence


def test_a_canary_answers_although_the_promotion_of_one_before_it_was_interrupted(store: Interrupted) -> None:
    """Only the newest one's labels decide: if another answered, they would never come."""
    config, before = waiting(store, canary=True)
    store.down = True
    with pytest.raises(KeyboardInterrupt):
        approval.approve(store, config, before.run_id, canary.WHO, "labels", NOW, evaluates=False)
    store.down = False
    assert canary.waiting(store, config, NOW) == before.version
    _, verdict = waiting(store, 2, canary=True)
    assert canary.waiting(store, config, NOW) == verdict.version == canary.decide(store, config, NOW)["version"]


def test_a_run_that_goes_on_under_a_yaml_that_asks_nobody_waits_as_long_as_by_default(store: Store) -> None:
    run = run_examples.make(store)
    verdict = run.verdict.model_copy(update={"verdict": "waiting", "against": 0, "champion": None})
    champion_log.settle(store, run.plan, verdict, run.package.manifest_sha256)
    document = recording.record(store, run.config, run.plan, run.results(verdict=verdict, champion_after=None))
    asked = document["approval"]
    assert asked["state"] == "waiting" and asked["expires_at"] == clock.after(asked["requested_at"], 3 * 86_400)
