"""model.onnx and onnx.json of a package: the model in the ONNX format and the record of it, or of why there is none.

A model that cannot be exported, or that differs, is recorded and fails nothing: Keras serves it then. What does not
belong here: the export itself (onnx_export), which a process of the TensorFlow backend does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from leptonflow.core import deadlines, parquet
from leptonflow.core.code_digests import backend
from leptonflow.core.hashing import canonical, sha256
from leptonflow.core.request_process import RequestProcess
from leptonflow.registry import onnx_export, onnx_session, packages
from leptonflow.workloads import catalog, predictions
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import TimeLimit
from schemas.export import Export

Put = Callable[[str, bytes], bytes]
OFF = "serving.onnx is false in the pipeline's YAML"


def files(config: Pipeline, lying: Mapping[str, bytes], put: Put, process: RequestProcess | None) -> dict[str, bytes]:
    """The files by their names, as they lie in the package.

    lying: the package's others. put: creates one, and returns what lies there. process: one that exports.
    """
    if not config.serving.onnx:
        return {packages.EXPORT: put(packages.EXPORT, canonical(Export(reason=OFF)))}
    export, data = _exported(config, lying, None, process)
    if data is not None:
        there = put(packages.ONNX, data)
        if there != data:  # an earlier packaging left it, and ended before its record
            export, data = _exported(config, lying, there, process)
    record = put(packages.EXPORT, canonical(export))
    named = Export.model_validate_json(record).sha256
    return {packages.EXPORT: record, **({} if data is None or named != sha256(data) else {packages.ONNX: data})}


def _exported(
    config: Pipeline, lying: Mapping[str, bytes], there: bytes | None, process: RequestProcess | None
) -> tuple[Export, bytes | None]:
    """The record, and the model where it may be served; there: one that was exported before, and is checked alone."""
    workload = catalog.load(config.workload)
    table = parquet.read(lying["reference.parquet"])
    inputs = workload.codec.read(table[workload.codec.column].combine_chunks(), config.input)
    vocabulary = lying["vocabulary.json"].decode() if "vocabulary.json" in lying else None
    own = own_model.functions(config.model).get("custom_objects") is not None
    with tempfile.TemporaryDirectory() as name, _tensorflow(process) as child:
        if child is None:
            return Export(reason="TensorFlow, which exports it, is not installed"), None
        folder = Path(name)
        if there is not None:
            (folder / onnx_export.EXPORTED).write_bytes(there)
        request = onnx_export.request(
            folder, lying["model.keras"], lying[packages.SOURCE] if own else b"", lying["config.json"],
            workload.encode(inputs, vocabulary, config.input), predictions.matrix(table["probabilities"]),
        )  # fmt: skip
        try:
            reply = child.ask(request, deadlines.start(config, "infra_validate"))
        except TimeLimit as error:
            reply = {"error": error.line()}
        if "error" in reply:
            return Export(reason=f"it could not be exported: {reply['error']}"), None
        reason = onnx_session.unlike(reply["difference"])
        if reason is not None:
            return Export(reason=reason, difference=reply["difference"]), None
        data = (folder / onnx_export.EXPORTED).read_bytes()
    return Export(sha256=sha256(data), bytes=len(data), **reply), data


@contextmanager
def _tensorflow(process: RequestProcess | None) -> Iterator[RequestProcess | None]:
    """A process whose Keras is on TensorFlow: the given one where it is, else one of its own; None without it."""
    if process is not None and backend() == "tensorflow":
        yield process
    elif find_spec("tensorflow") is None:
        yield None
    else:
        with RequestProcess("leptonflow.registry.onnx_export", {"KERAS_BACKEND": "tensorflow"}) as own:
            yield own
