"""One text, looked at: its id, its metadata, and why it is refused."""

from __future__ import annotations

import hashlib
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonflow.workloads.text_classification import examples
from schemas.errors import LeptonflowError


@pytest.mark.parametrize(
    ("data", "rule", "reason"),
    [
        (b"", "empty-file", "no bytes"),
        (b" \r\n\t\n", "empty-text", "whitespace"),
        (b"\xef\xbb\xbf\n", "empty-text", "whitespace"),
        (b"caf\xe9 au lait", "not-utf8", "byte 3 is 0xe9"),
        (b"cut in two: \xe2\x82", "not-utf8", "byte 12 is 0xe2"),
        ("hé".encode("utf-16")[:-1], "not-utf8", "UTF-16"),
        ("plain words".encode("utf-32"), "not-utf8", "byte 0 is 0xff"),
        (b"aaaaaaa", "near-constant", "one character repeated 7 times: 'a'"),
        (b"- - -\n---", "near-constant", "one character"),
        (b"a fine\0 day", "nul-character", "character 6 is a NUL"),
        ("a fine day".encode("utf-16-le"), "nul-character", "UTF-16 without a byte order mark"),
        (b"Spam, spam! (SPAM)", "near-constant", "one word repeated 3 times: 'spam'"),
        (b"<p>&nbsp;</p>\n<br/>&#160;", "markup-only", "nothing but tags"),
        (b"<!DOCTYPE html><script>let words = 1</script><!-- words -->", "markup-only", "nothing but tags"),
        (b"<!-- a comment without an end", "markup-only", "nothing but tags"),
    ],
)
def test_a_text_that_says_nothing_is_refused(data: bytes, rule: str, reason: str) -> None:
    found = examples.examine(data)
    assert found.rule == rule
    assert reason in (found.reason or "")
    assert (found.id, found.metadata, found.text) == (None, None, None)
    with pytest.raises(LeptonflowError, match=rule):
        examples.request(data)


@pytest.mark.parametrize(
    "text", ["a < b and c > d", "I <3 you", "no no", "ok", "7", "AT&T; really", "<b>bold</b>", "哈哈"]
)
def test_a_text_that_says_something_is_accepted(text: str) -> None:
    found = examples.examine(text.encode())
    assert (found.rule, found.text) == (None, text)
    assert examples.request(text.encode()) == text


def test_a_lone_surrogate_is_not_text() -> None:
    """A JSON can spell one, and nothing can write it."""
    found = examples.examine_cells(["half \ud83d of it"])
    assert (found.rule, found.reason) == ("not-utf8", "character 5 is U+D83D, half of a surrogate pair")


def test_the_id_is_of_the_text_and_not_of_how_it_is_written() -> None:
    text = "Two lines\n\nof a café"
    spellings = [
        text.encode(),
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        text.replace("\n", "\r\n").encode(),
        text.replace("\n", "\r").encode(),
        unicodedata.normalize("NFD", text).encode(),
        f"\n  {text} \t\n".encode(),
        text.replace("lines", "lines  ").encode(),
    ]
    assert {examples.examine(data).id for data in spellings} == {hashlib.sha256(text.encode()).hexdigest()}
    assert examples.examine_cells([" Two lines", None, "", "of a café\n"]).text == text
    other = [text.upper(), text.replace("Two lines", "Two  lines"), text + "."]
    assert len({examples.examine(each.encode()).id for each in [text, *other]}) == 4


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_canonical_text_is_its_own_canonical_text(text: str) -> None:
    once = examples.canonical([text])
    assert examples.canonical([once]) == once
    assert once == once.strip() and unicodedata.is_normalized("NFC", once)


def test_metadata_counts_in_any_language() -> None:
    assert examples.metadata("Ab 12!") == {
        "characters": 6, "words": 2, "letters": 0.4, "digits": 0.4, "upper_case": 0.5,
    }  # fmt: skip
    assert examples.metadata("ПРИВЕТ мир")["upper_case"] == round(6 / 9, 4)
    assert examples.metadata("١٢٣ كتاب")["digits"] == round(3 / 7, 4)
    assert examples.metadata("...")["upper_case"] == 0


def test_a_long_text_is_cut_and_counted() -> None:
    text = "long words " * 20_000 + "end"
    found = examples.examine(text.encode())
    assert found.rule is None and found.text is not None and found.metadata is not None
    assert len(found.text) <= examples.MOST_CHARACTERS < len(text)
    assert found.metadata["cut_characters"] == len(text) - len(found.text)
    assert found.note == f"cut after {len(found.text):,} of 220,003 characters"
    assert found.id == hashlib.sha256(text.encode()).hexdigest(), "the id is of the whole text"


def test_texts_that_the_model_sees_cut_are_counted() -> None:
    rows = [examples.metadata("word " * count) for count in (5, 10, 11, 200)]
    (said,) = examples.remarks(rows, 10)
    assert said.startswith("2 of 4 texts have more than 10 words, and the model sees their beginning alone")
    (said,) = examples.remarks(rows[1:3], 10)
    assert said.startswith("1 of 2 texts has more than 10 words, and the model sees its beginning alone")
    assert examples.remarks(rows[:2], 10) == []


@pytest.mark.parametrize(
    "text",
    ["<!--" * 25_000, "<script " * 12_500, "<a" * 50_000, "&a" * 50_000, " \t" * 50_000 + "x", "a" + " " * 90_000],
)
def test_no_text_takes_long(text: str) -> None:
    """Each took minutes with a pattern that starts over at every character."""
    began = time.process_time()
    examples.examine_cells([text + "b"])
    assert time.process_time() - began < 2
