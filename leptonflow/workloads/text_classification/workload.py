"""The record of text classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.workloads import classification_errors
from leptonflow.workloads.base import Examined, Suffixes, Told, Workload
from leptonflow.workloads.text_classification import baselines, codec, examples, model, panels, proposal, scoring
from schemas.config import Pipeline
from schemas.text_classification import TextInput

CODE = """import json, keras, numpy, tokenizers
model = keras.saving.load_model("model.keras", compile=False, safe_mode=True)
words = tokenizers.Tokenizer.from_file("vocabulary.json")
classes = json.load(open("labels.json", encoding="utf-8"))
tokens = numpy.zeros((len(texts), {length}), "int32")
for row, found in zip(tokens, words.encode_batch(texts, add_special_tokens=False)):
    row[:len(found.ids[:{length}])] = found.ids[:{length}]
predictions = [classes[row.argmax()] for row in model.predict(tokens)]"""


def _examine(data: bytes, given: TextInput) -> Examined:
    return _as_examined(examples.examine(data))


def _typed(text: str, given: TextInput) -> Examined:
    return _as_examined(examples.examine_cells([text]))


def _as_examined(found: examples.ExaminedText) -> Examined:
    text = None if found.text is None else found.text.encode()
    facts = None if found.metadata is None else dict(found.metadata)
    return Examined(found.rule, found.reason, found.id, facts, text, found.note)


def _build(config: Pipeline, classes: Sequence[str]) -> Any:
    if config.model.function is not None:
        return model.own(config, classes)
    return model.build(config.model, config.input, len(classes))


def _remarks(facts: Sequence[Mapping[str, Any]], given: TextInput) -> list[str]:
    return examples.remarks([dict(each) for each in facts], given.length)


def _told(given: TextInput) -> Told:
    how = f"the first {given.length} tokens, of a vocabulary of at most {given.vocabulary}"
    return Told("a text", how, CODE.format(length=given.length))


WORKLOAD = Workload(
    name="text_classification",
    noun="texts",
    preprocessing_version=1,
    checks_version=2,
    contract="text_classification.contract.yaml",
    layouts=frozenset(("folders", "table")),
    suffixes=Suffixes(frozenset(examples.SUFFIXES), only=True),
    codec=codec.CODEC,
    encoding=lambda given: (),  # a part holds the whole text, whatever the model sees of it
    examine=_examine,
    encode_accepted=lambda data, given: _examine(data, given).encoded,
    cells=lambda given: given.columns or (),
    label=lambda given: given.label,
    typed=_typed,
    vocabulary=codec.vocabulary,
    encode=codec.encode,
    build=_build,
    compile=model.compile,
    augment=model.augment,
    target=scoring.TARGET,
    errors=classification_errors.analyse,
    baselines=baselines.scores,
    baseline_words=baselines.WORDS,
    request=lambda data, given: examples.request(data),
    malformed=codec.malformed,
    file=lambda encoded, given: (".txt", encoded),
    remarks=_remarks,
    told=_told,
    look=proposal.LOOK,
    propose=proposal.propose,
    panels=panels.panels,
    explain=panels.explain,
)
