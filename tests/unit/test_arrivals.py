"""What waits, remembered: the same answer as planning's on every store, and nothing asked for twice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core import store_keys
from leptonflow.data.dataset import dataset_state
from leptonflow.data.ingest import closed_batches, landing, pending_batches
from leptonflow.data.ingest.closed_batches import Arrival, Arrivals
from leptonflow.data.validation import contracts
from leptonflow.storage import commit_log
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import StoreUnreachable
from tests.batches import CONFIG, land, put

PETS = CONFIG.name


class Asked:
    """A store that counts what it is asked for, and fails where it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[tuple[str, str]] = []
        self.broken: str | None = None
        self.uri = store.uri

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)

        def counted(key: Any) -> Any:
            self.calls += [(name, each) for each in ([key] if isinstance(key, str) else key)]
            if self.broken is not None and self.broken in str(key):
                raise StoreUnreachable("it is away")
            return verb(key)

        return verb if name in ("create", "path") else counted

    def taken(self) -> list[tuple[str, str]]:
        calls, self.calls = self.calls, []
        return calls


def close(store: Store, batch: str, *files: str) -> None:
    """A plain batch, as any client puts it there."""
    for number, name in enumerate(files):
        store.create(f"landing/{PETS}/{batch}/{name}", b"x" * (number + 1))
    store.create(f"landing/{PETS}/{batch}/_READY", b"")


def accept(store: Store, *batches: str) -> None:
    for batch in batches:
        history = commit_log.read(store, f"snapshots/{PETS}/log")
        commit_log.commit(store, history, id=batch, kind="batch", body={"batch": batch}, who="test", why="accepted")


def refuse(store: Store, batch: str, config: Pipeline = CONFIG) -> None:
    store.create(store_keys.outcome_key(PETS, batch, contracts.digest(config)), b"{}")


def planned(store: Store, config: Pipeline = CONFIG) -> list[str]:
    return list(pending_batches.waiting(store, config, dataset_state.snapshots(store, PETS)))


def test_it_says_what_planning_says(store: Store) -> None:
    """Accepted, refused, open, misnamed and waiting batches, that change between two looks."""
    for batch in ("accepted", "refused", "waits", "of.another_kind-1"):
        close(store, batch, "cat/a.png")
    store.create(f"landing/{PETS}/open/cat/a.png", b"x")
    store.create(f"landing/{PETS}/No Name/_READY", b"")
    store.create("landing/other/else/_READY", b"")
    store.create(f"landing/{PETS}/file", b"")
    accept(store, "accepted")
    refuse(store, "refused")
    known = Arrivals(store, PETS)
    assert known.look(CONFIG) == planned(store) == ["of.another_kind-1", "waits"]
    assert known.open == ("open",)
    assert known.look(CONFIG) == []

    store.create(f"landing/{PETS}/open/_READY", b"")
    accept(store, "waits")
    assert known.look(CONFIG) == ["open"]
    assert known.open == ()
    assert known.waiting(CONFIG, ["open", "waits", "of.another_kind-1", "refused", "nothing"]) == planned(store)[::-1]


def test_a_landing_that_is_not_there_yet(store: Store) -> None:
    known = Arrivals(store, PETS)
    assert known.look(CONFIG) == []
    close(store, "first")
    assert known.look(CONFIG) == ["first"]


def test_nothing_is_asked_for_twice(store: Store) -> None:
    for number in range(40):
        close(store, f"batch-{number:02}", "cat/a.png")
    accept(store, *(f"batch-{number:02}" for number in range(20)))
    refuse(store, "batch-20")
    store.create(f"landing/{PETS}/open/cat/a.png", b"x")
    asked = Asked(store)
    known = Arrivals(asked, PETS)  # type: ignore[arg-type]
    assert len(known.look(CONFIG)) == 19
    first = asked.taken()
    assert not [key for verb, key in first if verb == "size" and "batch-07/_READY" in key]  # the log has named it

    assert known.look(CONFIG) == []
    about = [(verb, key) for verb, key in asked.taken() if verb != "folders"]
    assert about == [("size", f"landing/{PETS}/open/_READY")]

    close(store, "one-more")
    assert known.look(CONFIG, ["one-more"]) == ["one-more"]  # a hint: nothing is listed
    calls = asked.taken()
    assert not [key for verb, key in calls if verb in ("folders", "list") or "batch-" in key]
    assert known.look(CONFIG, ["one-more", "batch-03", "nothing", "../x", "No Name", "open"]) == []
    assert [key for _, key in asked.taken()] == [f"landing/{PETS}/{n}/_READY" for n in ("nothing", "open")]


def test_a_directory_is_listed_only_where_it_changed(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    close(store, "a")
    folder = tmp_path / "landing" / PETS
    os.utime(folder, ns=(0, 10**18))  # long ago
    asked = Asked(store)
    known = Arrivals(asked, PETS)  # type: ignore[arg-type]
    assert known.look(CONFIG) == ["a"]
    asked.taken()
    for _ in range(3):
        assert known.look(CONFIG) == []
    assert asked.taken() == []  # not one listing, not one look at a batch
    close(store, "b")
    assert known.look(CONFIG) == ["b"]
    # A change in the same tick of the clock as a listing must not be missed: what is fresh is listed again.
    assert known.look(CONFIG) == []
    assert [verb for verb, _ in asked.taken()].count("folders") == 2


def test_where_the_store_fails_nothing_is_lost(store: Store) -> None:
    close(store, "a")
    close(store, "b")
    asked = Asked(store)
    known = Arrivals(asked, PETS)  # type: ignore[arg-type]
    for broken in (f"landing/{PETS}/b", "store.json", "snapshots/", "batches/"):
        asked.broken = broken
        with pytest.raises(StoreUnreachable):
            known.look(CONFIG)
    asked.broken = None
    assert known.look(CONFIG) == ["a", "b"]
    assert known.look(CONFIG) == []


def test_under_another_contract_a_refused_batch_waits_again(store: Store) -> None:
    close(store, "refused")
    close(store, "accepted")
    refuse(store, "refused")
    accept(store, "accepted")
    known = Arrivals(store, PETS)
    assert known.look(CONFIG) == []
    stricter = CONFIG.model_copy(update={"quarantine": CONFIG.quarantine.model_copy(update={"limit": 0.01})})
    assert known.look(stricter) == planned(store, stricter) == ["refused"]
    assert known.look(stricter) == []
    refuse(store, "refused", stricter)
    assert known.waiting(stricter, ["refused"]) == []
    assert known.look(CONFIG) == []  # under this one it is refused as before


def test_another_store_at_the_same_address(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    close(store, "a")
    accept(store, "a")
    known = Arrivals(store, PETS)
    assert known.look(CONFIG) == []
    (tmp_path / "store").rename(tmp_path / "away")
    again = open_store((tmp_path / "store").as_uri())
    close(again, "a")
    close(again, "b")
    assert known.look(CONFIG) == ["a", "b"]


def test_a_batch_that_was_taken_away_is_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    close(store, "a")
    known = Arrivals(store, PETS)
    assert known.look(CONFIG) == ["a"]
    (tmp_path / "landing" / PETS / "a").rename(tmp_path / "elsewhere")
    assert known.look(CONFIG) == []
    assert known.waiting(CONFIG, ["a"]) == []
    (tmp_path / "elsewhere").rename(tmp_path / "landing" / PETS / "a")
    assert known.look(CONFIG) == ["a"]


@pytest.mark.parametrize("garbage", [b"", b"no JSON", b"[]", b'{"kind": "batch", "body": 3}'])
def test_a_log_that_is_damaged_hides_no_batch(garbage: bytes) -> None:
    """The run says what is wrong with the log; until then what it may have accepted waits."""
    store = open_store(f"memory://{os.urandom(8).hex()}")
    for batch in ("a", "b"):
        close(store, batch)
    accept(store, "a")
    store.create(f"snapshots/{PETS}/log/00000002.json", garbage)
    assert Arrivals(store, PETS).look(CONFIG) == ["b"]


def test_how_much_a_batch_holds(store: Store, tmp_path: Path) -> None:
    known = Arrivals(store, PETS)
    close(store, "plain", "cat/a.png", "cat/b.png", "dog/c.png")
    close(store, "empty")
    store.create(f"landing/{PETS}/damaged/_READY", b"no listing")
    data = put(tmp_path / "source", "cat/a.png", "dog/b.png")
    landed = land(store, tmp_path / "source", "ours")
    assert landed.batch == "ours" and landing.listed(store, PETS, "ours") is not None
    store.create(f"landing/{PETS}/ours/added-later", b"and in no listing")
    assert known.look(CONFIG) == ["damaged", "empty", "ours", "plain"]
    assert [known.measure(batch) for batch in ("plain", "empty", "damaged", "ours", "nothing")] == [
        Arrival(PETS, "plain", 3, 1 + 2 + 3),
        Arrival(PETS, "empty", 0, 0),
        Arrival(PETS, "damaged", None, None),
        Arrival(PETS, "ours", 2, sum(map(len, data))),
        Arrival(PETS, "nothing", None, None),
    ]


def test_a_long_log_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows, and from where the last reading ended."""
    monkeypatch.setattr(closed_batches, "WINDOW", 3)
    store = open_store(f"memory://{os.urandom(8).hex()}")
    names = [f"b{number}" for number in range(8)]
    for batch in names:
        close(store, batch)
    accept(store, *names[:7])
    asked = Asked(store)
    known = Arrivals(asked, PETS)  # type: ignore[arg-type]
    assert known.look(CONFIG) == names[7:]
    asked.taken()
    accept(store, names[7])
    assert known.waiting(CONFIG, names) == []
    assert read_records(asked.taken()) == [8, 9, 10, 11]


def read_records(calls: Sequence[tuple[str, str]]) -> list[int]:
    def numbers() -> Iterator[int]:
        for verb, key in calls:
            if verb == "get_many" and key.startswith("snapshots/"):
                yield int(key.rpartition("/")[2].removesuffix(".json"))

    return list(numbers())
