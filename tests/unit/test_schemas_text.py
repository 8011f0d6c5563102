"""A number and its noun, as every message has them."""

from __future__ import annotations

from schemas.text import counted, noun, shortened


def test_a_number_and_its_noun() -> None:
    assert [counted(n, "example") for n in (0, 1, 2)] == ["0 examples", "1 example", "2 examples"]
    assert [counted(n, "batch", "batches") for n in (1, 2)] == ["1 batch", "2 batches"]
    assert [noun(n, "is", "are") for n in (1, 3)] == ["is", "are"]


def test_a_long_text_ends_after_a_word_and_says_so() -> None:
    assert shortened("a holdout of 90", 15) == "a holdout of 90"
    assert shortened("a holdout of 900 examples", 15) == "a holdout of …"
    assert shortened("x" * 20, 4) == "xxxx …"
