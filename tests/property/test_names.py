"""Names from outside are hostile: keys are safe on every store and distinct, names are valid Unicode."""

from __future__ import annotations

import os
import re

from hypothesis import assume, example, given
from hypothesis import strategies as st

from leptonflow.core.store_keys import new_key
from leptonflow.data.ingest import label_columns, label_tables, layouts, source_layout
from schemas.config import NAME

# What a file on Linux may be called: any bytes but NUL and the slash.
COMPONENT = (
    st.binary(min_size=1, max_size=255)
    .map(lambda b: b.translate(None, b"\0/"))
    .filter(lambda b: b not in (b"", b".", b".."))
)
FILE = st.lists(COMPONENT, min_size=1, max_size=4).map(lambda parts: os.fsdecode(b"/".join(parts)))


@given(FILE)
@example("_READY")
@example("cat/_INGEST")
@example(".hidden/..x")
@example("photo#1 \n \\ 100%.jpg")
@example("e\u0301 " * 60)
def test_a_key_is_safe(name: str) -> None:
    key = layouts.escape(name)
    assert re.fullmatch(r"[A-Za-z0-9._%~/-]+", key)
    assert new_key(f"landing/p/b/{key}")
    for component in key.split("/"):
        assert component[0] not in "._" and len(component) <= 213
    assert key.count("/") == name.count("/")


@given(FILE, FILE)
@example("a%20b", "a b")
@example("a~b", "a%7Eb")
@example("x" * 201, "x" * 202)
@example("%2Ea", ".a")
def test_distinct_names_have_distinct_keys(one: str, other: str) -> None:
    assume(one != other)
    assert layouts.escape(one) != layouts.escape(other)


@given(st.from_regex(r"([A-Za-z0-9-][A-Za-z0-9._-]{0,199}/){0,2}[A-Za-z0-9-][A-Za-z0-9._-]{0,199}", fullmatch=True))
def test_a_harmless_name_is_its_own_key(name: str) -> None:
    assert layouts.escape(name) == name


@given(FILE)
def test_a_recorded_name_is_valid_unicode(name: str) -> None:
    shown = layouts.shown(name)
    assert shown.encode()
    assert shown == name or "\\x" in shown
    assert shown.count("/") == name.count("/")


@given(st.text(max_size=300), st.text("0123456789abcdef", min_size=64, max_size=64))
@example("", "0" * 64)
@example("...", "0" * 64)
@example("Ümläut Ordner", "0" * 64)
def test_a_default_name_is_a_batch_name(source: str, digest: str) -> None:
    name = layouts.default_name(source, digest)
    assert NAME.fullmatch(name) and name.endswith("-" + digest[:12])


PATH = st.lists(st.sampled_from(["a", "b.jpg", ".", "..", "", "~", " "]), max_size=6).map("/".join)


@given(PATH)
def test_a_tables_path_never_leaves_its_folder(path: str) -> None:
    name, rule = label_tables.name_of(path)
    assert (name is None) != (rule is None)
    inside = os.path.normpath(os.path.join("/base/folder", path))
    if name is None:
        assert rule is not None and (rule[0] == "path-escape") != inside.startswith("/base/folder/")
    else:
        assert inside == os.path.normpath(f"/base/folder/{name}") and not name.startswith(("/", ".."))


@given(st.one_of(st.integers(), st.text(max_size=20), st.floats(), st.none(), st.booleans()))
def test_a_label_is_a_stripped_string_or_nothing(value: object) -> None:
    label = label_columns.label(value)
    assert label is None or (label == label.strip() and label)
    assert label_columns.label(label) == label


@given(st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,2})?|N/?A|null|nan|None|True|[-+][0-9]", fullmatch=True))
@example("1.0")
@example("01")
def test_a_label_is_the_text_as_it_stands(text: str) -> None:
    assert label_columns.label(text) == text
    assert label_tables.read("t.csv", f"path,label\na.png,{text}\n".encode()).labels == [text]


@given(st.lists(FILE, max_size=8))
def test_every_set_of_names_has_a_layout(names: list[str]) -> None:
    found = source_layout.layout(names)
    assert found.kind in ("folders", "npy", "table")
    assert {n for n in (found.table, *(n for pair in found.pairs for n in pair)) if n is not None} <= set(names)
    for name in names:
        assert layouts.label_of(layouts.shown(name), found.roots) != ""
