"""The record of the workload."""

from __future__ import annotations

from number_sections import Input

from leptonflow.workloads.base import Panels, Proposal, Shown, Suffixes, Told, Workload
from leptonflow.workloads.number_regression import examples, model, scoring

PROPOSAL = Proposal(
    told=(), seen={}, input={"size": 3}, why=None, kind="a linear model", sources="", section="input: {size: 3}",
    model="model: {units: 0}", training="training: {epochs: 30}", baseline="",
)  # fmt: skip

WORKLOAD = Workload(
    name="number_regression",
    noun="row",
    preprocessing_version=1,
    checks_version=1,
    contract="none.yaml",  # a pipeline names its own
    layouts=frozenset(("table",)),
    suffixes=Suffixes(frozenset((".numbers",))),
    codec=examples.CODEC,
    encoding=lambda given: given.size,
    examine=examples.examine,
    encode_accepted=lambda data, given: examples.examine(data, given).encoded,
    cells=lambda given: ("numbers",),
    encode=examples.encode,
    build=model.build,
    compile=model.compile,
    target=scoring.TARGET,
    baselines=scoring.baselines,
    baseline_words=scoring.WORDS,
    request=examples.request,
    malformed=examples.malformed,
    remarks=lambda facts, given: [],
    told=lambda given: Told("some numbers", f"{given.size} numbers", "import keras", "a number"),
    look=Input(),
    propose=lambda facts, count, cells, label: PROPOSAL,
    panels=lambda evaluated: Panels(
        lambda numbers: {each: Shown(text=str(evaluated.examples[each].tolist())) for each in numbers}
    ),
)
