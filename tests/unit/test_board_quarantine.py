"""The board's pages of quarantined rows: pictures and texts, wherever they were landed, and whose row each is."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest

from leptonflow.core.hashing import sha256
from leptonflow.data.ingest.landing import Index
from leptonflow.storage.address import open_store
from leptonflow.storage.store import Store
from schemas.records import LandedFile, Listing
from serving.board import landed_content
from serving.board.batch_records import Row
from tests.batches import CONFIG, image, land

LONG = b" ".join([b"word"] * 200)


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def row(batch: str, source: str, data: bytes | None) -> Row:
    return Row(batch, source, "cat", "duplicate", "the same", sha256(data) if data is not None else None)


def test_a_file_that_was_not_landed_again_is_found_where_it_lies(store: Store, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(image(1))
    (tmp_path / "cat" / "2.png").write_bytes(b"<!DOCTYPE html>\nnot found")
    land(store, tmp_path, "first")
    (tmp_path / "cat" / "3.png").write_bytes(image(2))
    before = {(sha256(image(1)), "cat"): ("duplicate", "the same")}
    land(store, tmp_path, "second", Index(recalled=before))
    rows = [row("second", "cat/1.png", image(1)), row("second", "cat/2.png", b"<!DOCTYPE html>\nnot found")]
    first, second = (landed_content.found(store, CONFIG.name, rows)[each.sha256 or ""] for each in rows)
    assert first == landed_content.Content("first", None)
    assert second == landed_content.Content("second", "<!DOCTYPE html> not found")
    assert landed_content.found(store, CONFIG.name, [row("second", "x", b"elsewhere"), row("second", "y", None)]) == {}


def test_cells_of_a_landed_table_are_shown_as_texts(store: Store) -> None:
    data = b"text,label\n" + b"first one,a\n" + LONG + b",a\n"
    file = LandedFile(key="t.csv", name="t.csv", size=len(data), sha256=sha256(data))
    listing = Listing(digest="0" * 64, layout="table", files=(file,), known=0, ignored=0, rows=(0, 1), cells=("text",))
    store.create("landing/pets/b/t.csv", data)
    store.create("landing/pets/b/_READY", listing.model_dump_json().encode())
    found = landed_content.found(store, "pets", [row("b", "t.csv[0]", b"first one"), row("b", "t.csv[1]", LONG)])
    assert found[sha256(b"first one")] == landed_content.Content(None, "first one")
    assert re.fullmatch(r"(word ){60}…", found[sha256(LONG)].text or "")


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe", b"a\0b", image(3), b"GIF89a text"])
def test_what_is_no_text(data: bytes) -> None:
    assert landed_content.text(data) is None
