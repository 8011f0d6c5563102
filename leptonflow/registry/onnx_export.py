"""A version's model in the ONNX format: exported by Keras on TensorFlow, in a process of its own, and held against it.

`python -m leptonflow.registry.onnx_export` is such a process; the load check's does it too. What does not belong here:
predicting (onnx_session), and what is recorded of it (package_builder).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.core.request_process import Message, answer_requests
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import latency, model_sources, onnx_session
from schemas.errors import line_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = "export"  # of a request: the folder where the files below lie
MODEL, SOURCE, CONFIG, ENCODED, OUTPUTS = "model.keras", "source.zip", "config.json", "encoded.npy", "outputs.npy"
EXPORTED = "model.onnx"


def request(folder: Path, model: bytes, code: bytes, config: bytes, encoded: NDArray[Any], outputs: Any) -> Message:
    """A request for the export of a model: its files go into the folder, and EXPORTED will lie there too.

    One that lies there already is held against the predictions, and nothing is exported.

    code      source.zip of a model that cannot be loaded without it, or nothing; config: config.json
    encoded   N x ...: examples as the model takes them; outputs: N x K, what Keras predicted of them
    """
    import numpy as np

    for name, data in {MODEL: model, SOURCE: code, CONFIG: config}.items():
        (folder / name).write_bytes(data)
    np.save(folder / ENCODED, encoded, allow_pickle=False)
    np.save(folder / OUTPUTS, outputs, allow_pickle=False)
    return {KEY: str(folder)}


def answer(request: Message) -> Message | None:
    """{difference, latency_ms, features} of the exported model, or {error}. None where that was not asked."""
    if KEY not in request:
        return None
    try:
        return _exported(Path(request[KEY]))
    except Exception as error:  # noqa: BLE001 - whatever a converter raises is why the model is not exported
        said = line_of(error)
        return {"error": " ".join(said.split())[:300]}


def _exported(folder: Path) -> Message:
    import numpy as np

    encoded, outputs = (np.load(folder / name, allow_pickle=False) for name in (ENCODED, OUTPUTS))
    if not (folder / EXPORTED).exists():
        config = json.loads((folder / CONFIG).read_bytes())
        with model_sources.objects((folder / SOURCE).read_bytes(), config) as objects:
            model = keras_models.load((folder / MODEL).read_bytes(), objects)
            (folder / EXPORTED).write_bytes(export(model, encoded[:1]))
    compute = onnx_session.opened((folder / EXPORTED).read_bytes())
    rows, features = onnx_session.in_batches(compute, encoded)
    return {
        "difference": onnx_session.largest([(rows, outputs)]),
        "latency_ms": latency.single(compute, encoded),
        "features": None if features is None else int(features.shape[1]),
    }


def export(model: Any, encoded: NDArray[Any]) -> bytes:
    """The model in the ONNX format: `inputs` -> `outputs` and, where it has any, `features`, both float32.

    encoded: one example or more. The same model is the same bytes. Raises whatever Keras and tf2onnx do.
    """
    keras = keras_models.keras()
    both = with_features(model) or model
    floats = [each if each.dtype == "float32" else keras.ops.cast(each, "float32") for each in both.outputs]
    if any(new is not old for new, old in zip(floats, both.outputs, strict=True)):
        both = keras.Model(both.inputs, floats)
    both.predict_on_batch(encoded)  # Keras exports only what was called
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / EXPORTED
        both.export(path, format="onnx", verbose=False)
        return canonical(path.read_bytes())


def with_features(model: Any) -> Any | None:
    """A model of the same layers with a second output, what the last layer gets: (N, F). None where that is no row.

    So it is of a model that is no graph of layers, such as a subclass of keras.Model.
    """
    try:
        last, outputs = model.layers[-1].input, model.outputs
        if len(outputs or ()) != 1 or len(getattr(last, "shape", ())) != 2:
            return None
        return keras_models.keras().Model(model.inputs, [outputs[0], last])
    except (AttributeError, IndexError, ValueError):  # Keras: never called, called twice, or of a graph of its own
        return None


def canonical(data: bytes) -> bytes:
    """The same graph, whatever names and order the converter chose, which are others in each process."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    _copy_outputs_alone(graph)
    _reorder(graph)
    names = {"": "", graph.input[0].name: "inputs"}
    names |= {each.name: name for each, name in zip(graph.output, ("outputs", "features"), strict=False)}
    _rename(graph, names)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    graph.name = "model"
    return bytes(model.SerializeToString(deterministic=True))


def _graphs(node: Any) -> Iterator[Any]:
    """The graphs within a node, such as the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g


def _needed(node: Any) -> Iterator[str]:
    """The names that a node reads, those within its graphs included."""
    yield from node.input
    for graph in _graphs(node):
        for inner in graph.node:
            yield from _needed(inner)
        yield from (each.name for each in graph.output)


def _copy_outputs_alone(graph: Any) -> None:
    """Leave out every Identity, and add one for each output that another output is already, or that no node makes."""
    from onnx import helper

    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    nodes = [node for node in graph.node if node.op_type != "Identity"]
    made = {name for node in nodes for name in node.output}

    def replace(inner: list[Any]) -> None:
        for node in inner:
            node.input[:] = [_followed(name, same) for name in node.input]
            for body in _graphs(node):
                replace(body.node)
                for value in body.output:
                    value.name = _followed(value.name, same)

    replace(nodes)
    taken: set[str] = set()
    for number, value in enumerate(graph.output):
        value.name = source = _followed(value.name, same)
        if source in taken or source not in made:
            value.name = f"{source} copied to {number}"
            nodes.append(helper.make_node("Identity", [source], [value.name]))
        taken.add(source)
    _put(graph.node, nodes)
    for node in graph.node:
        for body in _graphs(node):
            _copy_outputs_alone(body)


def _followed(name: str, same: dict[str, str]) -> str:
    while name in same:
        name = same[name]
    return name


def _put(field: Any, items: Iterable[Any]) -> None:
    """The items as what a repeated field holds, of which they may be some."""
    copies = [type(each).FromString(each.SerializeToString()) for each in items]
    del field[:]
    field.extend(copies)


def _reorder(graph: Any) -> None:
    """Nodes as they are met on the way from the outputs to the inputs, each after what it reads; likewise weights."""
    for node in graph.node:
        for inner in _graphs(node):
            _reorder(inner)
    made = {name: node for node in graph.node for name in node.output}
    weights = {each.name: each for each in graph.initializer}
    done: dict[str, Any] = {}  # the first output of each node, in order
    used: dict[str, Any] = {}
    waiting = [each.name for each in reversed(graph.output)]
    while waiting:
        name = waiting[-1]
        node = made.get(name)
        if node is None or node.output[0] in done:
            waiting.pop()
            continue
        before = [each for each in _needed(node) if each in made and made[each].output[0] not in done]
        if before:
            waiting += reversed(before)
            continue
        done[node.output[0]] = node
        used |= {each: weights[each] for each in _needed(node) if each in weights}
    used |= {each.name: weights[each.name] for each in graph.output if each.name in weights}
    _put(graph.node, done.values())
    _put(graph.initializer, used.values())


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Number every name of a graph and of those within it, in order; shapes between nodes are not kept."""

    def new(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}")

    del graph.value_info[:]
    graph.doc_string = ""
    for weight in graph.initializer:
        weight.name = new(weight.name)
    for value in graph.input:
        value.name = new(value.name)
        _forget_sizes(value)
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        for number, inner in enumerate(_graphs(node)):
            inner.name = f"graph{number}"
            _rename(inner, names)
        node.output[:] = [new(name) for name in node.output]
        node.name = node.doc_string = ""
    for value in graph.output:
        value.name = new(value.name)
        _forget_sizes(value)


def _forget_sizes(value: Any) -> None:
    """The converter numbers each size that it does not know."""
    for size in value.type.tensor_type.shape.dim:
        if size.dim_param:
            size.Clear()


def main() -> None:
    """Import Keras, and export what is asked for until standard input ends."""
    answer_requests(lambda: keras_models.keras() and None, lambda request: answer(request) or {})


if __name__ == "__main__":
    main()
