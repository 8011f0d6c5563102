"""The commit log: its chain, what damages it, and who wins a race."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from leptonflow.core.hashing import canonical, sha256
from leptonflow.storage import commit_log as logs
from leptonflow.storage.address import open_store
from leptonflow.storage.commit_log import WINDOW, Log, LostRace, commit, complete, newest, read
from leptonflow.storage.store import STORE_KEY, Store
from leptonflow.storage.store_identity import store_id
from schemas.errors import Damaged, NotFound, Overtaken

PREFIX = "promotions/digits/log"


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins as a new process does."""
    monkeypatch.setattr(logs, "_verified", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Store:
    return open_store(folder.as_uri())


def add(store: Store, log: Log, decision: str, body: dict[str, Any] | None = None, who: str = "a test") -> Log:
    return commit(store, log, id=decision, kind="promotion", body=body or {}, who=who, why="because")


def grown(store: Store, count: int) -> Log:
    log = read(store, PREFIX)
    for number in range(log.number + 1, log.number + 1 + count):
        log = add(store, log, f"decision-{number}", {"version": number})
    return log


def forget() -> None:
    logs._verified.clear()


def record(folder: Path, number: int) -> Path:
    return folder / PREFIX / f"{number:08d}.json"


def test_an_empty_log(store: Store) -> None:
    log = read(store, PREFIX)
    assert (log.entries, log.head, log.number) == ((), None, 0)
    assert list(store.list("")) == []  # a read writes nothing, not even the store's id


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_records_are_a_chain_and_read_as_they_were_written(store: Store, folder: Path, count: int) -> None:
    written = grown(store, count)
    assert read(store, PREFIX) == written
    forget()
    assert read(store, PREFIX) == written
    assert written.number == count
    assert [key for key, _ in store.list(PREFIX)] == [f"{PREFIX}/{n:08d}.json" for n in range(1, count + 1)]
    previous = None
    for number, entry in enumerate(written.entries, start=1):
        data = record(folder, number).read_bytes()
        found = json.loads(data)
        assert data == json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert found["previous"] == entry.previous == previous
        assert found["store"] == entry.store == store_id(store)
        assert (entry.number, entry.id, entry.body) == (number, f"decision-{number}", {"version": number})
        assert entry.at.endswith("Z")
        previous = entry.sha256
        assert previous == sha256(data)


def test_a_read_sees_what_another_process_added(store: Store) -> None:
    first = grown(store, 3)
    forget()
    added = add(store, first, "another")
    logs._verified[store.uri, PREFIX] = first
    assert read(store, PREFIX) == added


def test_odd_text_is_kept(store: Store) -> None:
    log = commit(
        store, read(store, PREFIX), id="x", kind="override", body={"ü": ["日本", None, 1.5]}, who="a\udcffb", why="ü\n"
    )
    forget()
    entry = read(store, PREFIX).entries[0]
    assert entry == log.head
    assert (entry.body, entry.who, entry.why) == ({"ü": ["日本", None, 1.5]}, "a\\udcffb", "ü\n")


def test_a_lost_race_names_the_winner_and_brings_the_new_state(store: Store) -> None:
    old = grown(store, 2)
    new = add(store, old, "theirs", who="anna")
    with pytest.raises(Overtaken, match=r"anna committed record 3, a promotion, at .*Z \(because\)") as caught:
        add(store, old, "mine")
    assert isinstance(caught.value, LostRace)
    assert caught.value.log == new
    assert caught.value.exit_status == 1
    assert pickle.loads(pickle.dumps(caught.value)).log == new  # noqa: S301 - as it crosses a process border
    assert add(store, caught.value.log, "mine").number == 4


def test_a_lost_reply_is_a_success(store: Store) -> None:
    old = grown(store, 2)
    new = add(store, old, "mine")
    assert add(store, old, "mine") == new  # the reply was lost, and the client wrote again
    later = add(store, new, "theirs")
    assert add(store, old, "mine") == later  # and others went on meanwhile
    assert read(store, PREFIX).number == 4


def test_of_8_racing_writers_each_commits_once(store: Store) -> None:
    def write(number: int) -> int:
        log = read(store, PREFIX)
        lost = 0
        while True:
            try:
                add(store, log, f"writer-{number}")
                return lost
            except LostRace as race:
                log, lost = race.log, lost + 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    forget()
    assert sorted(entry.id for entry in read(store, PREFIX).entries) == [f"writer-{n}" for n in range(8)]


@pytest.mark.parametrize(("count", "missing"), [(3, 1), (3, 2), (20, 3), (20, 16), (20, 17), (40, 25)])
def test_a_gap_is_damage_and_stops_commits(store: Store, folder: Path, count: int, missing: int) -> None:
    grown(store, count)
    record(folder, missing).unlink()
    forget()
    with pytest.raises(Damaged, match=f"{missing:08d}.json is missing"):
        read(store, PREFIX)


@pytest.mark.parametrize(("first", "last"), [(1, WINDOW), (3, WINDOW + 2), (3, 39)])
def test_a_gap_longer_than_a_read_looks_ahead_is_seen_by_a_listing(
    store: Store, folder: Path, first: int, last: int
) -> None:
    """Otherwise an earlier state is the state again, and the next commit forks the log."""
    grown(store, 40)
    for number in range(first, last + 1):
        record(folder, number).unlink()
    forget()
    short = read(store, PREFIX)
    assert short.number == first - 1, "a read looks no further than its window"
    told = rf"{first:08d}.json is missing, though record 40 is there"
    with pytest.raises(Damaged, match=told):
        complete(store, PREFIX)
    with pytest.raises(Damaged, match=told):
        add(store, short, "mine")
    assert not record(folder, first).exists()


def test_what_a_person_puts_beside_the_records_is_no_record(store: Store, folder: Path) -> None:
    written = grown(store, 3)
    for name in ("00000009.json.bak", "copy of 00000009.json", "00000009 (1).json", "zzz.json"):
        (folder / PREFIX / name).write_text("x")
    (folder / PREFIX / "00000009.json.d").mkdir()
    assert complete(store, PREFIX) == written
    assert newest(store, PREFIX) == written.head
    assert add(store, written, "next").number == 4


def test_a_log_that_grows_while_it_is_listed_is_complete(store: Store) -> None:
    first = grown(store, 2)

    class Growing:
        """A store in which another writer commits between the reading and the listing."""

        uri = store.uri
        get, path = staticmethod(store.get), staticmethod(store.path)
        waiting = True

        def keys(self, prefix: str) -> Any:
            if self.waiting:
                self.waiting = False
                forget()
                add(store, first, "theirs")
                logs._verified[store.uri, PREFIX] = first
            return store.keys(prefix)

    assert [entry.id for entry in complete(cast(Store, Growing()), PREFIX).entries][2:] == ["theirs"]


def test_records_that_arrive_between_two_looks_are_no_gap(store: Store) -> None:
    written = grown(store, 4)
    forget()

    class Slow:
        """A store whose first look at record 2 comes before two others commit it and its successors."""

        uri = store.uri
        path = staticmethod(store.path)
        early = True

        def get(self, key: str) -> bytes:
            if key.endswith("00000002.json") and self.early:
                self.early = False
                raise NotFound(key)
            return store.get(key)

    assert read(cast(Store, Slow()), PREFIX) == written


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}, sort_keys=True, separators=(",", ":")))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not a record"),
        (b'{"number":2', "is not a record"),
        (b"[]", "is not a record"),
        (b'{"number":2}', "is not a record"),
        (b"\xff\x00", "is not a record"),
    ],
)
def test_garbage_is_damage(store: Store, folder: Path, data: bytes, says: str) -> None:
    grown(store, 3)
    record(folder, 2).write_bytes(data)
    forget()
    with pytest.raises(Damaged, match=f"00000002.json {says}"):
        read(store, PREFIX)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"why": "another reason"},
            r"00000002.json was changed. Expected: digest [0-9a-f]{64}. Received: digest [0-9a-f]{64}",
        ),
        ({"digest": None}, r"00000002.json was changed. .*Received: digest None"),
        ({"previous": None}, "00000002.json .*Received: previous None"),
        ({"number": 7}, "00000002.json .*Expected: number 2. Received: number 7"),
        ({"store": "0" * 32}, "00000002.json .*Received: store 0000"),
        ({"body": "text"}, "00000002.json is not a record"),
        ({"extra": 1}, "00000002.json is not a record"),
    ],
)
def test_a_changed_record_is_damage(store: Store, folder: Path, changes: dict[str, Any], says: str) -> None:
    grown(store, 3)
    rewritten(record(folder, 2), **changes)
    forget()
    with pytest.raises(Damaged, match=says):
        read(store, PREFIX)


def test_a_head_that_changes_under_a_process_is_damage(store: Store, folder: Path) -> None:
    grown(store, 3)
    rewritten(record(folder, 3), why="another reason")
    with pytest.raises(Damaged, match=r"00000003.json is changed"):
        read(store, PREFIX)
    record(folder, 3).unlink()
    with pytest.raises(Damaged, match=r"00000003.json is missing"):
        read(store, PREFIX)


def test_another_store_at_the_same_address_is_read_afresh(store: Store, folder: Path) -> None:
    grown(store, 3)
    folder.rename(folder.with_name("moved"))
    assert read(store, PREFIX).number == 0
    assert grown(store, 1).number == 1
    assert read(store, PREFIX).number == 1


def test_a_lost_identity_is_said_and_never_replaced(store: Store, folder: Path) -> None:
    """A backup without store.json: a new id would disown every record, and nothing is overwritten."""
    written = grown(store, 2)
    identity = folder / STORE_KEY
    kept = identity.read_bytes()
    identity.unlink()
    for known in (False, True):  # a process that has read the log before, and one that has not
        if known:
            logs._verified[store.uri, PREFIX] = written
        else:
            forget()
        for ask in (
            lambda: complete(store, "snapshots/digits/log").number or store_id(store),
            lambda: store_id(store),
            lambda: newest(store, PREFIX),
            lambda: add(store, written, "mine"),
            *(() if known else (lambda: read(store, PREFIX),)),
        ):
            with pytest.raises(Damaged, match=r"store\.json is missing, though .*the `store` of any record"):
                ask()
    assert not identity.exists() and [key for key, _ in store.list(PREFIX)][2:] == []
    # What the hint asks for is enough.
    assert json.loads(kept) == {"format": 2, "id": written.entries[0].store}
    identity.write_text(json.dumps({"format": 2, "id": written.entries[0].store}))
    forget()
    assert add(store, read(store, PREFIX), "mine").number == 3


def test_a_moved_store_works_and_a_foreign_log_is_damage(store: Store, folder: Path, tmp_path: Path) -> None:
    written = grown(store, 3)
    folder.rename(tmp_path / "moved")
    moved = open_store((tmp_path / "moved").as_uri())
    assert read(moved, PREFIX) == written
    other = open_store((tmp_path / "other").as_uri())
    store_id(other)
    for key, _ in moved.list(PREFIX):
        other.create(key, moved.get(key))
    with pytest.raises(Damaged, match=r"00000001.json does not belong here.*store"):
        read(other, PREFIX)
    assert moved.get(STORE_KEY) != other.get(STORE_KEY)


def of_before(store: Store, folder: Path, count: int) -> None:
    """The log of a store of format 1, whose records have no digest of their own."""
    grown(store, count)
    previous = None
    for number in range(1, count + 1):
        found = json.loads(record(folder, number).read_bytes())
        del found["digest"]
        data = canonical({**found, "previous": previous})
        record(folder, number).write_bytes(data)
        previous = sha256(data)
    identity = json.loads(store.get(STORE_KEY))["id"]
    (folder / STORE_KEY).write_bytes(b'{"format":1,"id":"%s"}' % identity.encode())
    forget()


def test_records_of_before_stay_valid_and_new_ones_follow_them(store: Store, folder: Path) -> None:
    of_before(store, folder, 3)
    old = read(store, PREFIX)
    assert [entry.digest for entry in old.entries] == [None] * 3
    assert json.loads(store.get(STORE_KEY))["format"] == 1  # a read changes nothing
    add(store, old, "mine")
    assert json.loads(store.get(STORE_KEY))["format"] == 2
    forget()
    assert [entry.digest is None for entry in read(store, PREFIX).entries] == [True, True, True, False]
    assert newest(store, PREFIX) == read(store, PREFIX).head


def test_a_record_without_a_digest_after_one_with_it_is_damage(store: Store, folder: Path) -> None:
    grown(store, 2)
    found = json.loads(record(folder, 2).read_bytes())
    del found["digest"]
    record(folder, 2).write_bytes(canonical(found))
    forget()
    with pytest.raises(Damaged, match=r"00000002.json was changed\. .*Received: digest None"):
        read(store, PREFIX)


def test_the_last_record_is_verified_by_itself(store: Store, folder: Path) -> None:
    grown(store, 3)
    data = record(folder, 3).read_bytes()
    record(folder, 3).write_bytes(data.replace(b"because", b"becausf"))
    forget()
    for ask in (read, complete, newest):
        with pytest.raises(Damaged, match=r"00000003.json was changed"):
            ask(store, PREFIX)


@pytest.mark.parametrize("key", [STORE_KEY, *(f"{PREFIX}/{number:08d}.json" for number in (1, 2, 3))])
def test_a_wrong_reading_leaves_no_wrong_record(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """One flipped bit in a reading, of one byte in 29, in turn: what is committed then is right all the same."""
    grown(store, 3)
    monkeypatch.setattr("leptonflow.storage.objects.PAUSES", (0.0, 0.0))
    for position in range(0, len(store.get(key)), 29):
        forget()
        with monkeypatch.context() as patch:
            wrong_once(store, patch, key, position)
            written = add(store, read(store, PREFIX), f"at-{position}")
        forget()
        assert complete(store, PREFIX) == written


def test_nothing_is_committed_on_an_old_head_that_was_read_wrong(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_before(store, folder, 3)
    key = f"{PREFIX}/00000003.json"
    with monkeypatch.context() as patch:
        wrong_once(store, patch, key, store.get(key).index(b"because"))
        wrong = read(store, PREFIX)  # nothing in a record of before shows it
    with pytest.raises(Damaged, match=r"00000003.json changed between two reads"):
        add(store, wrong, "mine")
    assert store.keys(PREFIX)[-1] == key
    assert add(store, read(store, PREFIX), "mine").number == 4


def wrong_once(store: Store, patch: pytest.MonkeyPatch, key: str, position: int) -> None:
    """The next reading of the key has one bit wrong in that byte."""
    real, left = store.get, [True]

    def get(asked: str) -> bytes:
        data = real(asked)
        if asked != key or not left:
            return data
        left.clear()
        return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]

    patch.setattr(store, "get", get)


def test_a_log_in_a_folder_is_read_without_threads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(store, 3)
    forget()

    def start(thread: threading.Thread) -> None:
        raise AssertionError("a thread costs more than a file that is not there")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert read(store, PREFIX).number == 3
