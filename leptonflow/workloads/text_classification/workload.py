"""The record of text classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leptonflow.workloads import classification
from leptonflow.workloads.base import Examined, Metrics, Shown, Told, Workload
from leptonflow.workloads.text_classification import baselines, codec, examples, model
from schemas.config import Pipeline
from schemas.text_classification import TextInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODE = """import json, keras, numpy, tokenizers
model = keras.saving.load_model("model.keras", compile=False, safe_mode=True)
words = tokenizers.Tokenizer.from_file("vocabulary.json")
classes = json.load(open("labels.json", encoding="utf-8"))
tokens = numpy.zeros((len(texts), {length}), "int32")
for row, found in zip(tokens, words.encode_batch(texts, add_special_tokens=False)):
    row[:len(found.ids[:{length}])] = found.ids[:{length}]
predictions = [classes[row.argmax()] for row in model.predict(tokens)]"""


def _examine(data: bytes, given: TextInput) -> Examined:
    found = examples.examine(data)
    text = None if found.text is None else found.text.encode()
    facts = None if found.metadata is None else dict(found.metadata)
    return Examined(found.rule, found.reason, found.id, facts, text, found.note)


def _build(config: Pipeline, classes: Sequence[str]) -> Any:
    return model.build(config.model, config.input, len(classes))


def _compile(built: Any, config: Pipeline) -> None:
    classification.compile(built, config.training.optimizer, config.training.learning_rate)


def _baselines(
    train: NDArray[Any],
    train_labels: NDArray[np.int64],
    holdout: NDArray[Any],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    seed: int,
) -> dict[str, Metrics]:
    """The metrics of `majority`, the classes' shares, and of `tfidf`, a linear model of words and word pairs."""
    import numpy as np

    counts = np.bincount(train_labels, minlength=len(classes)).astype(np.float64)
    rows = {
        "majority": np.tile(counts / counts.sum(), (len(labels), 1)),
        "tfidf": baselines.probabilities(list(train), train_labels, list(holdout), len(classes), seed),
    }
    return {name: classification.score(labels, found, classes) for name, found in rows.items()}


def _remarks(facts: Sequence[Mapping[str, Any]], given: TextInput) -> list[str]:
    return examples.remarks([dict(each) for each in facts], given.length)


def _told(given: TextInput) -> Told:
    how = f"the first {given.length} tokens, of a vocabulary of at most {given.vocabulary}"
    return Told("a text", how, CODE.format(length=given.length))


WORKLOAD = Workload(
    name="text_classification",
    preprocessing_version=1,
    checks_version=1,
    contract="text_classification.contract.yaml",
    layouts=frozenset(("folders", "table")),
    suffixes=frozenset(examples.SUFFIXES),
    codec=codec.CODEC,
    encoding=lambda given: (),  # a part holds the whole text, whatever the model sees of it
    examine=_examine,
    encode_accepted=lambda data, given: _examine(data, given).encoded,
    cells=lambda given: given.columns or (),
    vocabulary=codec.vocabulary,
    encode=codec.encode,
    build=_build,
    compile=_compile,
    targets=classification.targets,
    curve=classification.curve,
    score=classification.score,
    baselines=_baselines,
    baseline_words={
        "majority": "always the largest class",
        "tfidf": "a logistic regression on TF-IDF of words and word pairs",
    },
    request=lambda data, given: examples.request(data),
    malformed=codec.malformed,
    remarks=_remarks,
    told=_told,
    show=lambda text: Shown(text=str(text)),
)
