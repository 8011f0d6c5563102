"""What `init` proposes for a source of texts: how much of each the model sees, and the rest of the YAML.

What does not belong here: which files or columns hold the texts and which classes there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.workloads import proposed_epochs
from leptonflow.workloads.base import Proposal
from schemas.text_classification import TextInput

LOOK = TextInput()
LENGTHS = (16, 32, 64, 96, 128, 192, 256)
WHOLE = 0.95  # of the texts that the model is to see whole
TOKENS = 1.25  # a word, as punctuation is a token too
LARGE = 5000  # texts from which larger steps train as well

SOURCES = """\
# SOURCE is a table (.csv, .tsv, .jsonl or .parquet) with a text column and a label column, or a folder with one folder
# of .txt files per class."""
SECTION = """\
# What the model sees of a text: its first `length` tokens (words and punctuation), of which it knows the `vocabulary`
# most frequent ones of its training examples.{columns}{why}
input: {input}"""
COLUMNS = "\n# `columns` are the table's columns of text, joined in this order; `label` can name the column of labels."
MODEL = """\
# bag: embeddings of words and of word pairs, averaged. Or cnn, gru, lstm, rnn; or your own: {function: my_model:build},
# where build(input, classes) returns a Keras model of token ids and my_model.py lies beside this file.
model: {kind: bag}"""
TRAINING = """\
{why}training: {{epochs: {epochs}, batch_size: {batch}, folds: 5, seed: 0, optimizer: adam, learning_rate: 0.005}}"""
EPOCHS, STEPS = 14, 360  # the usual number, and the steps that a fit has at least, where 100 epochs allow it
BASELINE = """\
  # Better on the holdout than always predicting the largest class, and than a logistic regression on TF-IDF of words
  # and word pairs. A network that is not is not worth its cost."""


def propose(facts: Sequence[Mapping[str, Any]], count: int, columns: tuple[str, ...], label: str | None) -> Proposal:
    """facts: the metadata of the texts that were looked at; count: how many there are; columns, label: of a table."""
    words = sorted(int(fact["words"]) for fact in facts)
    length, why = _length(words) if words else (LOOK.length, None)
    section = {"columns": list(columns) or None, "label": label, "length": length, "vocabulary": 20_000}
    section = {key: value for key, value in section.items() if value is not None}
    told = () if not words else (("texts", f"{len(words)} inspected: {_spread(words)}"),)
    batch = 128 if count >= LARGE else 32
    epochs = proposed_epochs.propose(count, batch, EPOCHS, STEPS)
    return Proposal(
        told=(*told, ("input", f"length {length}: {why or 'no text could be read'}"), *epochs.told),
        seen={"words": {"median": words[len(words) // 2], "most": words[-1]} if words else None},
        input=section,
        why=why,
        kind="a text classifier",
        sources=SOURCES,
        section=SECTION.format(
            columns=COLUMNS if columns else "",
            why=f"\n# Proposed: {why}." if why else "",
            input=f"{{{', '.join(f'{k}: {json.dumps(v, ensure_ascii=False)}' for k, v in section.items())}}}",
        ),
        model=MODEL,
        training=TRAINING.format(batch=batch, epochs=epochs.number, why=epochs.comment),
        baseline=BASELINE,
    )


def _spread(words: Sequence[int]) -> str:
    if words[0] == words[-1]:
        return f"each of {words[0]} words"
    return f"{words[0]} to {words[-1]} words, median {words[len(words) // 2]}"


def _length(words: Sequence[int]) -> tuple[int, str]:
    """The number of tokens that is proposed, and why. words: of each text, ascending."""
    most = words[min(len(words) - 1, int(WHOLE * len(words)))]
    length = next((length for length in LENGTHS if length >= TOKENS * most), LENGTHS[-1])
    told = f"{WHOLE:.0%} of the inspected texts have at most {most} words"
    return length, told if length >= TOKENS * most else f"{told}; a larger length shows more and takes longer"
