"""The champion, its history, a run's decision after every kind of interruption, and what a person may do."""

from __future__ import annotations

import getpass
import uuid
from typing import Any

import pytest

from leptonflow.core import person, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.registry import champion_log, manual_decisions
from leptonflow.registry.manual_decisions import EnsureInfra
from leptonflow.storage import commit_log as commits
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import Damaged, LeptonflowError, NotFound, Overtaken, UsageError
from schemas.records import InfraResult, Verdict
from tests.small_packages import PIPELINE, fit_to_run, plan, put


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def verdict(version: str, store: Store, word: str = "promoted") -> Verdict:
    """A decision against the log's head."""
    log = champion_log.promotions(store, PIPELINE)
    now = champion_log.champion(log)
    return Verdict(
        run_id=f"run-{version}", version=version, verdict=word, rules=(), sentence=f"{word} because",
        champion=now.version if now else None, against=log.number,
    )  # fmt: skip


def retrain(store: Store, version: str, number: int = 1) -> None:
    """A run that trains `version` and promotes it."""
    champion_log.settle(store, plan(version, number=number), verdict(version, store), put(store, version, number))


def promote(
    store: Store, version: str, reason: str = "because", who: str = "kim@lab", ensure: EnsureInfra = fit_to_run
) -> dict[str, Any]:
    return manual_decisions.promote(store, PIPELINE, version, reason, who, ensure)


def rollback(
    store: Store,
    to: str | None = None,
    reason: str = "because",
    who: str = "kim@lab",
    ensure: EnsureInfra = fit_to_run,
    away_from: str | None = None,
) -> dict[str, Any]:
    return manual_decisions.rollback(store, PIPELINE, to, reason, who, ensure, away_from=away_from)


def versions(store: Store) -> list[str]:
    return [row["version"] for row in champion_log.history(champion_log.promotions(store, PIPELINE))]


def damage(store: Store, version: str) -> None:
    """Lose a file of a package, as no verb of the store can."""
    del store._objects[f"models/{PIPELINE}/{version}/model.keras"]  # type: ignore[attr-defined]


# --- the champion and its history


def test_no_champion_yet(store: Store) -> None:
    log = champion_log.promotions(store, PIPELINE)
    assert (champion_log.champion(log), champion_log.history(log)) == (None, [])


def test_the_last_record_is_the_champion_and_the_records_are_the_history(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b", number=2)
    log = champion_log.promotions(store, PIPELINE)
    now = champion_log.champion(log)
    assert now is not None
    assert (now.version, now.number, now.previous, now.run_id, now.kind) == ("b", 2, "a", "run-b", "promotion")
    assert (now.snapshot, now.snapshot_number, now.since) == ("s2", 2, log.entries[-1].at)
    row = champion_log.history(log)[1]
    assert list(row) == ["number", "version", "previous", "run_id", "kind", "who", "reason", "at", "against"]
    assert (row["who"], row["reason"]) == ("run run-b", "promoted because")


def test_garbage_never_makes_an_earlier_champion_the_champion(store: Store) -> None:
    retrain(store, "a")
    log = champion_log.promotions(store, PIPELINE)
    for kind, body in (("promotion", {"version": "b"}), ("coup", dict(log.entries[0].body))):
        fork = open_store(f"memory://{uuid.uuid4().hex}")
        for key, _ in store.list(""):
            fork.create(key, store.get(key))
        commits.commit(fork, log, id="x", kind=kind, body=body, who="w", why="y")
        with pytest.raises(Damaged, match="00000002"):
            champion_log.champion(champion_log.promotions(fork, PIPELINE))


# --- a run's decision


def test_the_decision_lies_there_before_its_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")
    decided = verdict("a", store)

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(commits, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        champion_log.settle(store, plan("a"), decided, "0" * 64)
    monkeypatch.undo()
    assert store.get(f"runs/{PIPELINE}/run-a/decisions/0.json") == canonical(decided)

    standing = champion_log.standing_decision(store, plan("a"), champion_log.promotions(store, PIPELINE))
    assert standing == decided
    _, log = champion_log.settle(store, plan("a"), standing, "0" * 64)
    assert versions(store) == ["a"]
    assert champion_log.settle(store, plan("a"), standing, "0" * 64) == (standing, log), "again: nothing new"


def test_a_refused_decision_commits_nothing_and_stands_while_its_head_does(store: Store) -> None:
    retrain(store, "a")
    put(store, "b")
    put(store, "c")
    refused = verdict("b", store, "refused")
    stood, log = champion_log.settle(store, plan("b"), refused, "0" * 64)
    assert (stood, versions(store)) == (refused, ["a"])
    assert champion_log.standing_decision(store, plan("b"), log) == refused
    promote(store, "c")
    assert champion_log.standing_decision(store, plan("b"), champion_log.promotions(store, PIPELINE)) is None


def test_a_decision_on_the_champion_itself_commits_nothing(store: Store) -> None:
    retrain(store, "a")
    again = verdict("a", store).model_copy(update={"run_id": "another-gate"})
    assert champion_log.settle(store, plan("a", "another-gate"), again, "0" * 64)[0] == again
    assert versions(store) == ["a"]


def test_a_promotion_that_reached_the_log_stands_whatever_followed(store: Store) -> None:
    retrain(store, "a")
    decided = verdict("b", store)
    retrain(store, "b")
    rollback(store)
    log = champion_log.promotions(store, PIPELINE)
    assert champion_log.standing_decision(store, plan("b"), log) == decided
    assert champion_log.settle(store, plan("b"), decided, "0" * 64) == (decided, log)
    assert versions(store) == ["a", "b", "a"], "the rollback stands"


def test_a_promotion_that_did_not_reach_the_log_is_decided_again_after_a_change(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b")
    put(store, "c")
    decided = verdict("c", store)
    store.create(store_keys.decision_key(PIPELINE, "run-c", decided.against), canonical(decided))
    assert champion_log.standing_decision(store, plan("c"), champion_log.promotions(store, PIPELINE)) == decided
    rollback(store)
    assert champion_log.standing_decision(store, plan("c"), champion_log.promotions(store, PIPELINE)) is None


@pytest.mark.parametrize("word", ["promoted", "refused"])
def test_whoever_weighed_an_earlier_champion_is_told_by_whom_it_was_overtaken(store: Store, word: str) -> None:
    retrain(store, "a")
    put(store, "b")
    put(store, "c")
    decided = verdict("b", store, word)
    promote(store, "c", who="ada@lab")
    with pytest.raises(Overtaken, match=r"ada@lab committed record 2\b.*\boverride") as raised:
        champion_log.settle(store, plan("b"), decided, "0" * 64)
    assert isinstance(raised.value, commits.LostRace)
    assert raised.value.log == champion_log.promotions(store, PIPELINE)
    assert store.size(store_keys.decision_key(PIPELINE, "run-b", 1)) is None
    again = verdict("b", store)
    champion_log.settle(store, plan("b"), again, "0" * 64)
    assert versions(store) == ["a", "c", "b"]


def test_of_two_processes_of_one_run_the_first_decision_stands(store: Store) -> None:
    first, second = verdict("a", store, "refused"), verdict("a", store, "promoted")
    champion_log.settle(store, plan("a"), first, "0" * 64)
    assert champion_log.settle(store, plan("a"), second, "0" * 64)[0] == first
    assert versions(store) == []


def test_a_log_that_lost_records_is_not_continued(store: Store) -> None:
    decided = verdict("a", store).model_copy(update={"against": 2, "champion": "b"})
    with pytest.raises(Damaged, match="shorter than it was"):
        champion_log.settle(store, plan("a"), decided, "0" * 64)
    assert versions(store) == []


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[1]"])
def test_a_damaged_decision_is_not_decided_over(store: Store, garbage: bytes) -> None:
    store.create(store_keys.decision_key(PIPELINE, "run-a", 0), garbage)
    for attempt in (
        lambda: champion_log.standing_decision(store, plan("a"), champion_log.promotions(store, PIPELINE)),
        lambda: champion_log.settle(store, plan("a"), verdict("a", store), "0" * 64),
    ):
        with pytest.raises(Damaged, match=r"decisions/0\.json"):
            attempt()


# --- promote


def test_a_person_promotes_what_the_gate_refused(store: Store) -> None:
    retrain(store, "a")
    sha = put(store, "b", 2)
    asked: list[tuple[str, str]] = []

    def ensure(version: str, manifest_sha256: str) -> InfraResult:
        asked.append((version, manifest_sha256))
        return fit_to_run(version, manifest_sha256)

    document = promote(store, "b", reason=" the gate is too strict\n", ensure=ensure)
    log = champion_log.promotions(store, PIPELINE)
    assert document == {"champion": "b", "record": champion_log.history(log)[-1]}
    assert document["record"] | {"at": None} == {
        "number": 2, "version": "b", "previous": "a", "run_id": None, "kind": "override", "who": "kim@lab",
        "reason": "the gate is too strict", "at": None, "against": 1,
    }  # fmt: skip
    assert log.entries[-1].body["snapshot_number"] == 2
    assert asked == [("b", sha)]


def test_promoting_the_champion_itself_writes_no_record(store: Store) -> None:
    retrain(store, "a")
    assert promote(store, "a") == {"champion": "a", "record": None}
    assert versions(store) == ["a"]


@pytest.mark.parametrize(
    ("version", "reason", "problem"),
    [
        ("../a", "because", "--version"),
        ("A B", "because", "--version"),
        ("a", " \n", "--reason"),
        ("a", "", "--reason"),
    ],
)
def test_wrong_usage(store: Store, version: str, reason: str, problem: str) -> None:
    retrain(store, "a")
    retrain(store, "b")
    for attempt in (promote, rollback):
        with pytest.raises(UsageError, match=problem.replace("--version", "--(version|to)")):
            attempt(store, version, reason=reason)
    assert versions(store) == ["a", "b"]


def test_an_unknown_version_names_the_known_ones_newest_first(store: Store) -> None:
    with pytest.raises(NotFound, match="there is none yet"):
        promote(store, "a")
    for number, version in enumerate("cab", start=1):
        put(store, version, number)
    with pytest.raises(NotFound, match="one of b, a, c") as raised:
        promote(store, "x")
    assert raised.value.exit_status == 1


def test_what_is_not_whole_or_does_not_run_is_not_promoted(store: Store) -> None:
    retrain(store, "a")
    put(store, "b")

    def unfit(version: str, manifest_sha256: str) -> InfraResult:
        return fit_to_run(version, manifest_sha256).model_copy(update={"passed": False, "sentence": "it differs"})

    with pytest.raises(LeptonflowError, match="it differs") as raised:
        promote(store, "b", ensure=unfit)
    assert raised.value.exit_status == 1
    damage(store, "b")
    with pytest.raises(Damaged, match=r"b/model\.keras"):
        promote(store, "b")
    assert versions(store) == ["a"]


# --- rollback


def test_twice_goes_from_c_to_a_and_not_back_to_c(store: Store) -> None:
    for version in "abc":
        retrain(store, version)
    assert rollback(store)["champion"] == "b"
    document = rollback(store, reason="b is worse still")
    assert (document["champion"], document["record"]["previous"]) == ("a", "b")
    assert (document["record"]["kind"], document["record"]["reason"]) == ("rollback", "b is worse still")
    assert versions(store) == ["a", "b", "c", "b", "a"]
    with pytest.raises(LeptonflowError, match="replaced no earlier champion") as raised:
        rollback(store)
    assert "newest undamaged one is b" in (raised.value.hint or "")
    assert len(versions(store)) == 5


def test_rollback_to_an_earlier_champion(store: Store) -> None:
    for version in "abc":
        retrain(store, version)
    put(store, "d")
    assert rollback(store, "a")["champion"] == "a"
    assert rollback(store, "c")["champion"] == "c"
    for to, problem in (("d", "never the champion.*an earlier champion: a, b"), ("c", "already the champion")):
        with pytest.raises(LeptonflowError, match=problem) as raised:
            rollback(store, to)
        assert raised.value.exit_status == 1
    assert versions(store) == ["a", "b", "c", "a", "c"]


def test_a_rollback_from_a_named_champion_goes_back_once_however_often_it_is_called(store: Store) -> None:
    for version in "abc":
        retrain(store, version)
    assert rollback(store, away_from="c")["record"]["version"] == "b"
    for to in (None, "a"):
        assert rollback(store, to, away_from="c") == {"champion": "b", "record": None}
    assert versions(store) == ["a", "b", "c", "b"]
    with pytest.raises(LeptonflowError, match=r"x was never the champion.*a champion: b, c, a"):
        rollback(store, away_from="x")
    with pytest.raises(UsageError, match="--from"):
        rollback(store, away_from="../b")


def test_who_rolls_back_beside_others_finds_it_done(store: Store) -> None:
    for version in "abc":
        retrain(store, version)

    def another_is_first(version: str, manifest_sha256: str) -> InfraResult:
        if versions(store)[-1] == "c":
            rollback(store, away_from="c", who="ada@lab")
        return fit_to_run(version, manifest_sha256)

    assert rollback(store, away_from="c", ensure=another_is_first) == {"champion": "b", "record": None}
    assert versions(store) == ["a", "b", "c", "b"]


def test_a_promotion_of_the_first_champion_can_be_rolled_back(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b")
    promote(store, "a")
    assert rollback(store)["champion"] == "b"
    assert rollback(store)["champion"] == "a"
    with pytest.raises(LeptonflowError, match="replaced no earlier champion"):
        rollback(store)
    assert versions(store) == ["a", "b", "a", "b", "a"]


def test_nothing_to_roll_back(store: Store) -> None:
    with pytest.raises(LeptonflowError, match="no champion to roll back"):
        rollback(store)
    with pytest.raises(LeptonflowError, match="no champion to roll back"):
        rollback(store, "a")


@pytest.mark.parametrize("to", [None, "c"])
def test_a_target_that_is_not_whole_names_the_newest_whole_one(store: Store, to: str | None) -> None:
    for version in "abcd":
        retrain(store, version)
    damage(store, "c")
    for whole in "ba":
        with pytest.raises(Damaged, match=r"c/model\.keras") as raised:
            rollback(store, to)
        command = f"`leptonflow rollback digits --to {whole} --reason TEXT`"
        assert raised.value.hint == f"The newest undamaged one is {whole}: {command}"
        damage(store, whole)
    with pytest.raises(Damaged, match="No other earlier champion is undamaged"):
        rollback(store, to)
    assert versions(store) == ["a", "b", "c", "d"]


def test_a_version_must_still_have_the_manifest_that_made_it_champion(store: Store) -> None:
    retrain(store, "a")
    retrain(store, "b")
    objects = store._objects  # type: ignore[attr-defined]
    for key in [k for k in objects if k.startswith(f"models/{PIPELINE}/a/")]:
        del objects[key]
    put(store, "a", 7)
    for attempt in (lambda: rollback(store), lambda: promote(store, "a")):
        with pytest.raises(Damaged, match=r"a/manifest\.json"):
            attempt()


# --- lost races


class Rival:
    """An infra-validation during which somebody else commits: the widest window there is."""

    def __init__(self, store: Store, *champions: str) -> None:
        self.store, self.champions, self.asked = store, list(champions), 0

    def __call__(self, version: str, manifest_sha256: str) -> InfraResult:
        self.asked += 1
        if self.champions:
            promote(self.store, self.champions.pop(0), who="ada@lab")
        return fit_to_run(version, manifest_sha256)


def test_a_promotion_is_decided_again_three_times_at_most(store: Store) -> None:
    for version in "abcdx":
        put(store, version)
    assert promote(store, "x", ensure=Rival(store, "a", "b"))["record"]["previous"] == "b"
    rival = Rival(store, "a", "b", "c", "d")
    with pytest.raises(Overtaken, match=r"ada@lab committed record 6\b.*\boverride"):
        promote(store, "d", ensure=rival)
    assert rival.asked == 3
    assert versions(store) == ["a", "b", "x", "a", "b", "c"]


def test_a_promotion_that_another_person_made_meanwhile_is_done(store: Store) -> None:
    put(store, "a")
    assert promote(store, "a", ensure=Rival(store, "a")) == {"champion": "a", "record": None}
    assert versions(store) == ["a"]


def test_a_rollback_never_takes_down_a_champion_that_was_not_meant(store: Store) -> None:
    for version in "abc":
        retrain(store, version)
    put(store, "d")
    with pytest.raises(Overtaken, match=r"ada@lab committed record 4\b.*\boverride"):
        rollback(store, ensure=Rival(store, "d"))
    assert versions(store) == ["a", "b", "c", "d"]
    assert rollback(store, "b", ensure=Rival(store, "a"))["record"]["previous"] == "a", "a named target still stands"


# --- who


def test_who_is_at_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTONFLOW_USER", "  Kim, on call ")
    assert person.person() == "Kim, on call"
    monkeypatch.setenv("LEPTONFLOW_USER", "")
    monkeypatch.setattr(getpass, "getuser", lambda: "kim")
    assert person.person().startswith("kim@")

    def nameless() -> str:
        raise OSError("no user name")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert person.person().startswith("uid-")
