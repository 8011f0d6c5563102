"""The record of the workload."""

from __future__ import annotations

from leptonflow.workloads.base import Panels, Shown, Told, Workload
from leptonflow.workloads.number_regression import examples, model, scoring

WORKLOAD = Workload(
    name="number_regression",
    preprocessing_version=1,
    checks_version=1,
    contract="none.yaml",  # a pipeline names its own
    layouts=frozenset(("table",)),
    suffixes=frozenset((".numbers",)),
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
    panels=lambda evaluated: Panels(
        lambda numbers: {each: Shown(text=str(evaluated.examples[each].tolist())) for each in numbers}
    ),
)
