"""The tokenizer: fitted on some texts alone, kept as JSON, the same whenever it is made of the same texts."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from leptonflow.workloads.text_classification import tokens
from schemas.errors import Damaged
from tests.texts import sample

TEXTS, _ = sample(200)


def test_the_same_texts_give_the_same_tokenizer_in_any_order() -> None:
    document = tokens.fit(TEXTS, 1000)
    assert tokens.fit(TEXTS, 1000) == document
    assert tokens.fit(TEXTS[::-1], 1000) == document
    assert tokens.fit(TEXTS, 20) == tokens.fit(TEXTS[::-1], 20), "ties at the end of the vocabulary"


def test_a_fresh_process_with_another_hash_seed_makes_the_same_one() -> None:
    code = "from leptonflow.workloads.text_classification import tokens\nfrom tests.texts import sample\n"
    code += "print(tokens.fit(sample(200)[0], 30), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (tokens.fit(TEXTS, 30), "")


def test_it_is_reloaded_exactly() -> None:
    document = tokens.fit(TEXTS, 50)
    tokenizer = tokens.load(document)
    assert tokenizer.to_str() == document
    first = tokens.encode(tokenizer, TEXTS, 16)
    assert (first == tokens.encode(tokens.load(tokenizer.to_str()), TEXTS, 16)).all()
    assert (tokenizer.get_vocab_size(), first.max()) == (50, 49)


def test_ids_are_padded_cut_and_unknown() -> None:
    tokenizer = tokens.load(tokens.fit(["one two", "two"], 10))
    ids = tokens.encode(tokenizer, ["Two ONE", "two three two, one", "", "\u200b"], 3)
    assert ids.dtype == np.int32
    two, one = 2, 3
    expected = [[two, one, tokens.PAD], [two, tokens.UNKNOWN, two], [1, 0, 0], [1, 0, 0]]
    assert ids.tolist() == expected
    assert tokens.unknown_share(ids).tolist() == [0, 1 / 3, 1, 1]
    assert tokens.unknown_share(np.zeros((1, 3), np.int32)).tolist() == [0]
    assert tokens.encode(tokenizer, [], 3).shape == (0, 3)


def test_only_the_texts_that_it_is_fitted_on_are_in_it() -> None:
    """Fitted on a fold's training texts, a token of the held out texts alone is unknown."""
    held = "zyzzyva"
    folds = [[*TEXTS[:100], held], TEXTS[100:]]
    for number, kept in enumerate(folds):
        tokenizer = tokens.load(tokens.fit(kept, 1000))
        assert (held in tokenizer.get_vocab()) == (number == 0)
        assert tokens.encode(tokenizer, [held], 1)[0, 0] == (tokenizer.token_to_id(held) if number == 0 else 1)


def test_settings() -> None:
    assert "Two" in tokens.load(tokens.fit(["Two two"], 10, lowercase=False)).get_vocab()
    assert "one" not in tokens.load(tokens.fit(["one two two"], 10, minimum_count=2)).get_vocab()
    characters = tokens.words(tokens.load(tokens.fit(["天気 は"], 10)), "天気 は")
    assert len(characters) == 3, "Chinese characters are tokens"


def test_words_stand_where_the_text_has_them() -> None:
    text = "Café, “naïve”\n\nthe end…"
    found = tokens.words(tokens.load(tokens.fit([text], 50)), text)
    assert [text[word.start : word.end] for word in found] == ["Café", ",", "“", "naïve", "”", "the", "end", "…"]
    assert all(word.id > tokens.UNKNOWN for word in found)


@pytest.mark.parametrize("document", ["", "{}", "not json", json.dumps({"version": "1.0", "model": {}})])
def test_what_is_no_tokenizer_is_damaged(document: str) -> None:
    with pytest.raises(Damaged, match="tokenizer"):
        tokens.load(document)


def test_another_tokenizer_is_refused() -> None:
    document = json.loads(tokens.fit(TEXTS, 20))
    document["model"]["vocab"] = {"<unk>": 0, "<pad>": 1}
    document["added_tokens"] = []
    with pytest.raises(Damaged, match="not one of this pipeline"):
        tokens.load(json.dumps(document))
