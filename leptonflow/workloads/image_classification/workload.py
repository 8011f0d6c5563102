"""The record of image classification."""

from __future__ import annotations

import operator

from leptonflow.workloads import classification_errors
from leptonflow.workloads.base import Codec, Derived, Suffixes, Workload
from leptonflow.workloads.image_classification import (
    baselines,
    examples,
    input_statistics,
    model,
    occlusion,
    panels,
    proposal,
    scoring,
)
from leptonflow.workloads.media.image import SUFFIXES, png

WORKLOAD = Workload(
    name="image_classification",
    noun="images",
    preprocessing_version=1,
    checks_version=2,
    contract="image_classification.contract.yaml",
    layouts=frozenset(("folders", "npy", "table")),
    suffixes=Suffixes(SUFFIXES),  # an image may have any name, as DICOM files do
    codec=Codec("pixels", examples.arrow, examples.read, examples.empty, examples.stack, examples.raw, examples.size),
    encoding=examples.encoding,
    examine=examples.examine,
    examine_array=examples.examine_array,
    encode_accepted=examples.encode_accepted,
    encode=examples.encode,
    build=model.build,
    step_bytes=model.step_bytes,
    compile=model.compile,
    augment=model.augment,
    target=scoring.TARGET,
    errors=classification_errors.analyse,
    baselines=baselines.scores,
    baseline_words=baselines.WORDS,
    request=examples.request,
    malformed=examples.malformed,
    remarks=panels.remarks,
    told=panels.told,
    look=proposal.LOOK,
    propose=proposal.propose,
    panels=panels.panels,
    explain=occlusion.explain,
    derived={"size": Derived(("width", "height"), operator.mul)},  # pixels of the image as it arrived
    carriers=frozenset(("format", "bytes")),
    input_statistics=input_statistics.of,
    file=png.file,
)
