"""What lies in landing beside the batches that wait: open ones, names that are none, files that came late."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leptonflow.data.dataset import admission, dataset_state
from leptonflow.data.ingest import batch_state, discards, landing, landing_state
from leptonflow.data.ingest.closed_batches import Arrivals
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.errors import Damaged
from schemas.records import Outcome
from tests.batches import CONFIG, image, land, put
from tests.unit.test_poison import put as put_plain

PETS = CONFIG.name


def document(store: Store) -> dict[str, object]:
    return batch_state.document(store, CONFIG, dataset_state.snapshots(store, PETS))


def outcome(store: Store, batch: str) -> Outcome:
    """As admission records it."""
    opened = landing.open_batch(store, PETS, batch)
    return Outcome(
        pipeline=PETS, batch=batch, contract="c", outcome="accepted", arrived=1, accepted=1, quarantined=0, known=0,
        ignored=0, snapshot="s", reasons={}, quarantine=None, sentence="1 accepted", seen=opened.seen, at="now",
        listing=opened.listing.digest if opened.listing else None,
    )  # fmt: skip


def late(store: Store, *outcomes: Outcome) -> dict[str, tuple[int, str]]:
    return {each.batch: (each.files, each.sentence) for each in landing_state.late(store, PETS, outcomes)}


def test_files_that_come_after_a_plain_batch_was_read_are_counted(store: Store) -> None:
    """On each store: as S3 clients and `cp` put them there."""
    put_plain(store, "tuesday", cat__a=b"1", dog__b=b"2")
    put_plain(store, "whole", cat__a=b"1")
    read = [outcome(store, "tuesday"), outcome(store, "whole")]
    assert late(store, *read) == {}
    store.create(f"landing/{PETS}/tuesday/cat/.hidden", b"")
    store.create(f"landing/{PETS}/tuesday/.DS_Store", b"")
    assert late(store, *read) == {}
    for number in range(8):
        store.create(f"landing/{PETS}/tuesday/cat/late {number}.png", b"x")
    assert late(store, *read) == {"tuesday": (8, "8 files added later")}
    assert late(store, read[0].model_copy(update={"seen": None})) == {}  # read by an earlier release: not known


def test_files_that_were_taken_away_or_renamed_are_told(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    put_plain(store, "b", cat__a=b"1", cat__b=b"2")
    read = outcome(store, "b")
    folder = tmp_path / "landing" / PETS / "b" / "cat"
    (folder / "a").rename(folder / "c")
    assert late(store, read) == {"b": (0, "other files than when it was read")}
    (folder / "c").unlink()
    assert late(store, read) == {"b": (-1, "1 file taken away")}
    (folder / "b").unlink()
    assert late(store, read) == {}  # cleared away: whoever did it knows


def test_a_batch_that_ingest_landed_is_held_against_its_listing(tmp_path: Path) -> None:
    """Also what somebody put there before it was read: `_READY` says what is in the batch."""
    store = open_store((tmp_path / "store").as_uri())
    put(tmp_path / "source", "cat/a.png", "_odd/.x.png", "ü/b c.png")
    landed = land(store, tmp_path / "source", "ours")
    assert late(store, outcome(store, landed.batch)) == {}
    store.create(f"landing/{PETS}/ours/cat/late.png", b"x")
    assert late(store, outcome(store, landed.batch)) == {"ours": (1, "1 file added later")}


def test_of_many_files_the_newest_batches_are_looked_at(place: Store) -> None:
    for name in ("older", "newer"):
        put_plain(place, name, cat__a=b"1", cat__b=b"2", cat__c=b"3")
    read = [outcome(place, "older"), outcome(place, "newer")]
    for name in ("older", "newer"):
        place.create(f"landing/{PETS}/{name}/cat/late.png", b"x")
    assert [each.batch for each in landing_state.late(place, PETS, read)] == ["older", "newer"]
    assert [each.batch for each in landing_state.late(place, PETS, read, most=5)] == ["newer"]
    assert landing_state.late(place, PETS, read, most=2) == []


def test_a_ready_that_is_no_file_is_noticed(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    for name in ("folder", "link"):
        put_plain(store, name, None, cat__a=b"1")
    (tmp_path / "landing" / PETS / "folder/_READY").mkdir()
    (tmp_path / "landing" / PETS / "link/_READY").symlink_to(tmp_path / "nowhere")
    assert [(each.batch, each.note, each.wrong) for each in landing_state.open_batches(store, PETS)] == [
        ("folder", "its _READY must be a file", True),
        ("link", "its _READY must be a file", True),
    ]


def test_a_ready_of_gigabytes_is_not_read(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "LARGEST", 3)
    put_plain(place, "b", b"    ", cat__a=b"1")
    with pytest.raises(Damaged, match="Received: 4 bytes"):
        landing.open_batch(place, PETS, "b")


@pytest.mark.usefixtures("admission_tools")
def test_an_admission_records_what_it_saw(place: Store) -> None:
    put_plain(place, "plain", cat__a_dot_png=b"no image")
    assert admission.admit(place, CONFIG, "plain").seen == landing_state.seen(place, PETS, "plain")
    (refused,) = document(place)["refused"]  # type: ignore[misc, arg-type, has-type]
    assert refused["batch"] == "plain" and refused["reasons"] == {"unreadable-image": 1}
    (first,) = refused["quarantine"]
    assert (first["rule"], first["rows"], first["source"]) == ("unreadable-image", 1, "cat/a.png")
    assert refused["sentence"] == (
        "1 of 1 row newly quarantined, duplicates apart; quarantine.limit allows 0.2; 1 unreadable-image, such as "
        f"cat/a.png: {first['reason']}"
    )
    place.create(f"landing/{PETS}/plain/cat/b.png", image(1))
    assert document(place)["late"] == [{"batch": "plain", "files": 1, "sentence": "1 file added later"}]
    assert batch_state.lying(place, PETS).never_read == (f"{PETS}/plain: 1 file added later",)
    assert batch_state.lying(place, PETS).told == (f"refused: {PETS}/plain",)
    discards.discard(place, PETS, "plain", "why", "me")
    assert document(place)["refused"] == [] and batch_state.lying(place, PETS) == batch_state.Lying((), ())


@pytest.mark.parametrize(
    ("marker", "noticed"),
    [("_READY.txt", True), ("_ready", True), ("READY", True), ("_SUCCESS", True), (" _READY", True), ("_READY.", True),
     ("ready.png", False), ("already.txt", False), ("labels.csv", False)],
)  # fmt: skip
def test_a_marker_of_another_name_is_noticed(marker: str, noticed: bool, place: Store) -> None:
    put_plain(place, "friday", None, cat__a_dot_png=image(1))
    place.create(f"landing/{PETS}/friday/{marker}", b"")
    (found,) = landing_state.open_batches(place, PETS)
    assert (found.batch, found.files, found.wrong) == ("friday", 2, noticed)
    assert (found.note == f"its {marker} must be called _READY") == noticed


def test_open_and_misnamed_batches_are_listed_until_they_are_discarded(place: Store, tmp_path: Path) -> None:
    put_plain(place, "closed", cat__a_dot_png=image(1))
    put_plain(place, "open", None, cat__a_dot_png=image(1))
    put_plain(place, "Open Misnamed", None, cat__a_dot_png=image(1))
    put_plain(place, "Misnamed", cat__a_dot_png=image(1))
    place.create(f"landing/{PETS}/cut/_INGEST", b"{}")
    place.create(f"landing/{PETS}/_READY", b"")
    found = {each.batch: each for each in landing_state.open_batches(place, PETS)}
    assert sorted(found) == ["Open Misnamed", "cut", "open"]
    assert found["open"].note is None and not found["open"].wrong
    assert "no batch can have this name" in str(found["Open Misnamed"].note) and found["Open Misnamed"].wrong
    assert "run the same command again" in str(found["cut"].note) and not found["cut"].wrong
    told = document(place)
    assert (told["waiting"], told["misnamed"]) == (["closed"], ["Misnamed"])
    assert told["warnings"] == [f"landing/{PETS}/_READY is not in a batch: a batch is a folder below landing/{PETS}/"]
    lying = batch_state.lying(place, PETS)
    assert len(lying.never_read) == 3 and [line.split(" (")[0] for line in lying.told] == [
        f"open: {PETS}/cut",
        f"open: {PETS}/open",
    ]
    for name in ("Open Misnamed", "Misnamed", "cut", "open"):
        discards.discard(place, PETS, name, "why", "me")
    told = document(place)
    assert (told["open"], told["misnamed"], told["waiting"]) == ([], [], ["closed"])
    assert len(told["discarded"]) == 4  # type: ignore[arg-type]


def test_when_a_batch_was_last_written(store: Store, tmp_path: Path) -> None:
    put_plain(store, "open", None, cat__a_dot_png=image(1))
    (found,) = landing_state.open_batches(store, PETS)
    folder = store.path(f"landing/{PETS}/open/cat")
    if folder is not None:
        os.utime(folder / "a.png", (1_000_000_000, 1_000_000_000))
        (found,) = landing_state.open_batches(store, PETS)
        assert found.newest is not None and found.newest.isoformat() == "2001-09-09T01:46:40+00:00"
    else:
        assert store.uri.startswith("memory:") or found.newest is not None
    assert store.modified("nothing/here") is None


def test_a_folder_that_is_closed_to_this_user_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user's upload may be. Root may look anywhere, so the system's answer is given here."""
    store = open_store(tmp_path.as_uri())
    for name in ("theirs", "whole"):
        put_plain(store, name, cat__a_dot_png=image(1))
    scandir, access = os.scandir, os.access
    locked = f"{tmp_path}/landing/{PETS}/theirs"

    def closed(path: str) -> object:
        if str(path).startswith(locked):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(locked) and access(path, mode))
    told = document(store)
    assert told["waiting"] == ["whole"] and Arrivals(store, PETS).look(CONFIG) == ["whole"]
    (found,) = landing_state.open_batches(store, PETS)
    assert (found.batch, found.wrong) == ("theirs", True) and "may not read" in str(found.note)
    monkeypatch.setattr(os, "access", lambda path, mode: True)  # the folder is open, one in it is not
    assert landing_state.seen(store, PETS, "theirs") is None
    assert landing_state.late(store, PETS, [outcome(store, "whole").model_copy(update={"batch": "theirs"})]) == []
