"""A batch that cannot be read is refused by name, and keeps nothing else waiting; a discarded one is asked no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonflow.data.dataset import admission, dataset_state
from leptonflow.data.ingest import discards, intake, landing, pending_batches
from leptonflow.data.ingest.closed_batches import Arrivals
from leptonflow.data.validation import examination
from leptonflow.data.validation.examined_rows import Row
from leptonflow.storage import commit_log, objects
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import ExaminerLost, LeptonflowError, NotFound, StoreUnreachable, UsageError
from schemas.records import Listing
from tests.batches import CONFIG, image

PETS = CONFIG.name
pytestmark = pytest.mark.usefixtures("admission_tools")


def put(store: Store, batch: str, ready: bytes | None = b"", **files: bytes) -> None:
    """A plain batch; of a file's name, __ is a slash."""
    for name, data in files.items():
        store.create(f"landing/{PETS}/{batch}/{name.replace('__', '/').replace('_dot_', '.')}", data)
    if ready is not None:
        store.create(f"landing/{PETS}/{batch}/_READY", ready)


def waiting(store: Store) -> list[str]:
    planned = list(pending_batches.waiting(store, CONFIG, dataset_state.snapshots(store, PETS)))
    assert Arrivals(store, PETS).look(CONFIG) == planned  # the watcher says the same
    return planned


LISTING = Listing(digest="x", layout="table", files=(), known=0, ignored=0, refused=())
HOSTILE = {
    "text": b"done on monday\n",
    "json": b'{"not": "a listing"}',
    "cut": b'{"digest": "x", "layout": "fold',
    "binary": b"\x00\xff\xfe" * 9,
    "deep": b"[" * 100_000,
    "escapes": LISTING.model_copy(
        update={"files": ({"key": "../x", "name": "x", "size": 1, "sha256": "0"},)}
    ).model_dump_json().encode(),
}  # fmt: skip


def test_a_ready_with_other_text_refuses_that_batch_alone(place: Store) -> None:
    for name, ready in HOSTILE.items():
        put(place, name, ready, cat__a_dot_png=image(1))
    put(place, "whitespace", b" \r\n", cat__a_dot_png=image(1))
    assert waiting(place) == sorted([*HOSTILE, "whitespace"])
    for name in HOSTILE:
        outcome = admission.admit(place, CONFIG, name)
        assert (outcome.outcome, outcome.arrived) == ("refused", 0)
        assert "_READY is damaged" in outcome.sentence and "another batch name" in outcome.sentence
    assert waiting(place) == ["whitespace"]


class Raises:
    """An examination that raises, however often it is asked."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)

    def __call__(self, *_: object, **__: object) -> list[Row]:
        raise self.errors.pop(0)


def lost() -> ExaminerLost:
    return ExaminerLost("a process that checks examples ended", received="killed by SIGKILL")


@pytest.mark.parametrize(
    "errors",
    [
        [IndexError("list index out of range")],
        [MemoryError()],
        [RecursionError("too deep")],
        [OSError("Corrupt snappy compressed data.")],
        [UsageError("not a valid store key", received="'x/../y'")],
        [LeptonflowError("an example could not be examined", received="ValueError: of a child")],
        [lost(), lost()],
    ],
    ids=lambda errors: type(errors[-1]).__name__,
)
def test_whatever_an_examination_raises_refuses_the_batch(
    errors: list[BaseException], place: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, "poison", cat__a_dot_png=image(1))
    monkeypatch.setattr(examination, "examine", Raises(*errors))
    outcome = admission.admit(place, CONFIG, "poison")
    assert outcome.outcome == "refused" and "\n" not in outcome.sentence
    assert "cannot be examined" in outcome.sentence
    assert waiting(place) == []


@pytest.mark.parametrize(
    "errors",
    [[StoreUnreachable("it is away")], [OSError(24, "Too many open files")], [lost(), StoreUnreachable("away")]],
)
def test_what_is_not_the_batchs_fault_is_raised(
    errors: list[BaseException], place: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, "good", cat__a_dot_png=image(1))
    monkeypatch.setattr(examination, "examine", Raises(*errors))
    with pytest.raises(type(errors[-1])):
        admission.admit(place, CONFIG, "good")
    assert waiting(place) == ["good"]


def test_a_discarded_batch_is_neither_read_nor_waiting(place: Store, tmp_path: Path) -> None:
    for name in ("closed", "refused"):
        put(place, name, b"no listing", cat__a_dot_png=image(1))
    put(place, "open", None, cat__a_dot_png=image(1))
    put(place, "Mis Named", b"", cat__a_dot_png=image(1))
    admission.admit(place, CONFIG, "refused")
    watcher = Arrivals(place, PETS)
    assert watcher.look(CONFIG) == ["closed"]
    for name in ("closed", "refused", "open", "Mis Named"):
        record, made = discards.discard(place, PETS, name, " of no use ", "somebody")
        assert made and (record.batch, record.reason, record.who) == (name, "of no use", "somebody")
        again = discards.discard(place, PETS, name, "other words", "somebody else")
        assert again == (record, False)  # the first record stands
    assert [each.batch for each in discards.every(place, PETS)] == ["Mis Named", "closed", "open", "refused"]
    place.create(f"landing/{PETS}/open/_READY", b"")
    history = dataset_state.snapshots(place, PETS)
    assert pending_batches.pending(place, CONFIG, history) == pending_batches.Pending()
    assert watcher.look(CONFIG) == [] and watcher.waiting(CONFIG, ["closed"]) == []
    with pytest.raises(UsageError, match="was discarded by somebody"):
        admission.admit(place, CONFIG, "closed")
    (tmp_path / "source/cat").mkdir(parents=True)
    (tmp_path / "source/cat/b.png").write_bytes(image(2))
    before = place.keys("landing")
    with pytest.raises(UsageError, match="was discarded by somebody"):
        intake.ingest(place, CONFIG, tmp_path / "source", "open")
    assert place.keys("landing") == before


def test_what_cannot_be_discarded(place: Store) -> None:
    put(place, "accepted", cat__a_dot_png=image(1))
    history = commit_log.read(place, f"snapshots/{PETS}/log")
    commit_log.commit(place, history, id="x", kind="batch", body={"batch": "accepted"}, who="test", why="accepted")
    with pytest.raises(LeptonflowError, match="is in the dataset"):
        discards.discard(place, PETS, "accepted", "why", "me")
    with pytest.raises(NotFound, match="no batch 'nothing'"):
        discards.discard(place, PETS, "nothing", "why", "me")
    with pytest.raises(UsageError, match="reason"):
        discards.discard(place, PETS, "accepted", " ", "me")
    assert discards.every(place, PETS) == []


def test_a_run_that_accepts_it_meanwhile_wins(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place, "b", cat__a_dot_png=image(1))

    def accepted_first(store: Store, key: str, data: bytes) -> bytes:
        history = commit_log.read(store, f"snapshots/{PETS}/log")
        commit_log.commit(store, history, id="x", kind="batch", body={"batch": "b"}, who="test", why="accepted")
        return objects.adopt(store, key, data)

    monkeypatch.setattr(discards, "adopt", accepted_first)
    with pytest.raises(LeptonflowError, match="is in the dataset"):
        discards.discard(place, PETS, "b", "why", "me")


def test_a_damaged_discard_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    put(store, "b")
    discards.discard(store, PETS, "b", "why", "me")
    (tmp_path / f"discarded/{PETS}/b.json").write_bytes(b"garbage")
    with pytest.raises(LeptonflowError, match=f"discarded/{PETS}/b.json"):
        discards.every(store, PETS)
    assert landing.closed_batches(store, PETS) == ["b"] and waiting(store) == []
