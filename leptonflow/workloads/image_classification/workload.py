"""The record of image classification."""

from __future__ import annotations

import operator

from leptonflow.workloads.base import Derived, Workload
from leptonflow.workloads.image_classification import baselines, examples, model, panels, scoring

WORKLOAD = Workload(
    name="image_classification",
    preprocessing_version=1,
    checks_version=2,
    contract="image_classification.contract.yaml",
    examine=examples.examine,
    examine_array=examples.examine_array,
    encode_accepted=examples.encode_accepted,
    build=model.build,
    compile=model.compile,
    targets=model.targets,
    score=scoring.score,
    baselines=baselines.scores,
    request=examples.request,
    remarks=panels.remarks,
    derived={"size": Derived(("width", "height"), operator.mul)},  # pixels of the image as it arrived
)
