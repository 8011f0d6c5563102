"""One set of checks that every store passes, on a directory, in memory, on SeaweedFS and on MinIO."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from leptonflow.core.hashing import sha256
from leptonflow.storage.address import open_store
from leptonflow.storage.objects import adopt, parsed, place, recorded, steady
from leptonflow.storage.store import STORE_KEY, Store
from leptonflow.storage.store_identity import known_id, store_id
from schemas.errors import AlreadyExists, Damaged, NotFound, UsageError

ODD_NAMES = [
    "with space",
    "photo#1.png",
    "50%.png",
    "%41",
    "a?b&c=d",
    "st*r[1]",
    "ünï-日本-😀",
    "quote\"'",
    "a+b",
    "...",
]
NOT_KEYS = ["", "/absolute", "../outside", "a/../b", "a/./b", "..", "."]


def test_create_then_get(store: Store) -> None:
    store.create("a/b/c.bin", b"\x00\xff" * 1000)
    assert store.get("a/b/c.bin") == b"\x00\xff" * 1000
    assert store.size("a/b/c.bin") == 2000


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.create("a/_READY", b"")
    assert store.get("a/_READY") == b""
    assert store.size("a/_READY") == 0
    assert list(store.list("a")) == [("a/_READY", 0)]


def test_a_second_create_is_refused_and_changes_nothing(store: Store) -> None:
    store.create("k", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(AlreadyExists, match="'k'"):
            store.create("k", data)
    assert store.get("k") == b"first"


def test_of_16_racing_writers_one_wins(store: Store) -> None:
    for round_ in range(5):
        barrier = threading.Barrier(16)

        def write(number: int, key: str = f"race/{round_}", barrier: threading.Barrier = barrier) -> bool:
            own = open_store(store.uri)  # a client of its own, as another process would have
            barrier.wait()
            try:
                own.create(key, b"%02d" % number * 500)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(write, range(16)))
        assert won.count(True) == 1
        assert store.get(f"race/{round_}") == b"%02d" % won.index(True) * 500


def test_a_large_object_comes_back_whole(store: Store) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB: above what one S3 client sends in one piece by itself
    store.create("large", data)
    assert store.size("large") == len(data)
    assert store.get("large") == data
    with pytest.raises(AlreadyExists):
        store.create("large", data[:-1])


def test_what_is_not_there(store: Store) -> None:
    store.create("a/b", b"1")
    for key in ("nothing", "a", "a/c", "a/b/c"):
        assert store.size(key) is None
        with pytest.raises(NotFound, match=key):
            store.get(key)
    assert list(store.list("nothing")) == []
    assert store.folders("nothing") == []
    assert list(store.list("a/b")) == []


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert list(store.list("")) == []
    assert store.folders("") == []


def test_list_is_sorted_has_sizes_and_stops_at_the_slash(store: Store) -> None:
    keys = ["p/b/2", "p/b/1", "p/a", "p/b-x/1", "p/b.x", "pp/1", "q", "p/b/ü"]
    for number, key in enumerate(keys):
        store.create(key, b"x" * number)
    sizes = {key: number for number, key in enumerate(keys)}
    for prefix in ("", "p", "p/", "p/b"):
        start = prefix.rstrip("/") + "/" if prefix else ""
        assert list(store.list(prefix)) == sorted((k, n) for k, n in sizes.items() if k.startswith(start))
        assert store.keys(prefix) == sorted(k for k in sizes if k.startswith(start))
    assert store.folders("") == ["p", "pp"]
    assert store.folders("p") == ["b", "b-x"]
    assert store.folders("p/b") == []


def test_more_objects_than_one_page(store: Store) -> None:
    items = [(f"many/{n:05d}", b"%d" % n) for n in range(1100)]
    assert store.create_many(iter(items)) == []
    assert store.keys("many") == [key for key, _ in items]
    keys = [key for key, _ in reversed(items)]
    assert list(store.get_many(keys)) == [data for _, data in reversed(items)]


def test_create_many_leaves_what_exists_and_says_so(store: Store) -> None:
    store.create("m/1", b"old")
    items = [(f"m/{n}", b"new") for n in range(4)]
    assert store.create_many(items) == ["m/1"]
    assert store.create_many(items) == [key for key, _ in items]
    assert list(store.get_many([key for key, _ in items])) == [b"new", b"old", b"new", b"new"]


def test_nothing_but_scratch_is_removed(store: Store) -> None:
    for key in ("scratch/p/a/1.npz", "scratch/p/a/2.npz", "fits/p/a.json"):
        store.create(key, b"data")
    for key in ("fits/p/a.json", "scratch", "scratchy/a", "scratch/../fits/p/a.json", "store.json"):
        with pytest.raises(UsageError):
            store.remove_scratch(key)
    store.remove_scratch("scratch/p/a/1.npz")
    store.remove_scratch("scratch/p/a/1.npz")  # it is gone
    store.remove_scratch("scratch/p/b/1.npz")
    assert store.keys("scratch") == ["scratch/p/a/2.npz"]
    store.remove_scratch("scratch/p/a/2.npz")
    assert store.keys("") == ["fits/p/a.json"]
    store.create("scratch/p/a/1.npz", b"again")
    assert store.get("scratch/p/a/1.npz") == b"again"


def test_get_many_raises_at_the_missing_one(store: Store) -> None:
    store.create("g/1", b"1")
    got = store.get_many(["g/1", "g/2", "g/1"])
    assert next(got) == b"1"
    with pytest.raises(NotFound, match="g/2"):
        next(got)
    assert list(store.get_many([])) == []


def test_odd_names_are_taken_literally(store: Store) -> None:
    for number, name in enumerate(ODD_NAMES):
        store.create(f"odd/{name}/{name}", b"x" * number)
    expected = sorted((f"odd/{name}/{name}", number) for number, name in enumerate(ODD_NAMES))
    assert list(store.list("odd")) == expected
    assert store.keys("odd") == [key for key, _ in expected]
    assert store.folders("odd") == sorted(ODD_NAMES)
    for key, size in expected:
        assert store.size(key) == size
        assert len(store.get(key)) == size


@pytest.mark.parametrize("key", NOT_KEYS)
def test_a_key_never_leads_out_of_the_store(store: Store, key: str) -> None:
    for use in (store.get, store.size, lambda k: store.create(k, b"")):
        with pytest.raises(UsageError, match="not a valid store key"):
            use(key)
    if key:  # an empty prefix is the store's root
        for look in (store.list, store.folders, store.path):
            with pytest.raises(UsageError, match="not a valid store key"):
                look(key)


@pytest.mark.parametrize(
    "key", ["a//b", "a/", "a\nb", "a\\b", "a\x7f", "a\udcff", "ü" * 128, ".tmp-12-0123456789abcdef"]
)
def test_what_not_every_server_can_name_is_not_created(store: Store, key: str) -> None:
    with pytest.raises(UsageError, match="can be created"):
        store.create(key, b"")
    with pytest.raises(UsageError):
        store.create_many([(key, b"")])


def test_path_is_the_local_file_or_none(store: Store) -> None:
    store.create("a/b", b"1")
    path = store.path("a/b")
    assert (path is not None) == store.uri.startswith("file://")
    assert path is None or path.read_bytes() == b"1"
    root = store.path("")
    assert (root is None) == (path is None)
    assert root is None or root / "a" / "b" == path


def test_adopt_returns_what_lies_there(store: Store) -> None:
    assert adopt(store, "k", b"mine") == b"mine"
    assert adopt(store, "k", b"other") == b"mine"


def test_the_store_has_one_id(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: store_id(open_store(store.uri)), range(8)))
    assert len(ids) == 1
    assert len(ids.pop()) == 32


@pytest.mark.parametrize("data", [b"", b"[]", b'{"id":"short","format":1}', b'{"id":"%s","format":0}' % (b"0" * 32)])
def test_a_wrong_store_json_is_damaged(store: Store, data: bytes) -> None:
    store.create(STORE_KEY, data)
    with pytest.raises(Damaged, match=STORE_KEY):
        store_id(store)


def test_a_store_of_the_first_format_is_read_as_it_is_and_written_as_one_of_today(store: Store) -> None:
    store.create(STORE_KEY, b'{"format":1,"id":"%s"}' % (b"a" * 32))
    assert known_id(store) == "a" * 32
    assert store.get(STORE_KEY) == b'{"format":1,"id":"%s"}' % (b"a" * 32)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store_id(open_store(store.uri)), range(8))) == {"a" * 32}
    assert store.get(STORE_KEY) == b'{"format":2,"id":"%s"}' % (b"a" * 32)
    assert store.keys("") == [STORE_KEY]


def test_a_store_of_a_newer_release_is_refused_by_name(store: Store) -> None:
    store.create(STORE_KEY, b'{"format":3,"id":"%s"}' % (b"a" * 32))
    for ask in (known_id, store_id):
        with pytest.raises(Damaged, match=r"made by a newer leptonflow\. Expected: format 1 to 2\. Received: format 3"):
            ask(store)


def wrong_once(store: Store, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """The next readings are each wrong in one bit."""
    real, left = store.get, [times]

    def get(key: str) -> bytes:
        data = real(key)
        left[0] -= 1
        return data if left[0] < 0 else bytes([data[0] ^ 1]) + data[1:]

    monkeypatch.setattr(store, "get", get)


def test_a_reading_that_is_not_what_was_recorded_is_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("k", b"data")
    for times in (0, 1, 2):
        wrong_once(store, monkeypatch, times)
        assert recorded(store, "k", sha256(b"data")) == b"data"
    wrong_once(store, monkeypatch, 3)
    with pytest.raises(Damaged, match="k is not what was recorded"):
        recorded(store, "k", sha256(b"data"))


def test_what_is_adopted_is_what_lies_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest becomes a record: a wrong reading of it would make what lies there damaged for ever."""
    store.create("k", b"theirs")
    for mine in (b"theirs", b"mine"):
        wrong_once(store, monkeypatch)
        assert adopt(store, "k", mine) == b"theirs"
    wrong_once(store, monkeypatch)
    assert steady(store, "k") == b"theirs"


def test_a_key_named_after_its_bytes_holds_no_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place(store, "k", b"data")
    wrong_once(store, monkeypatch)
    place(store, "k", b"data")
    with pytest.raises(Damaged, match="k is not what was recorded"):
        place(store, "k", b"other")


def test_an_object_that_does_not_parse_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("word", b"{}")
    wrong_once(store, monkeypatch)
    assert parsed(store, "word", json.loads) == {}
    store.create("garbage", b"{")
    with pytest.raises(ValueError, match="Expecting"):
        parsed(store, "garbage", json.loads)
