"""The model card inside a package: what a version is, in Markdown, for whoever finds it without leptonflow.

After Mitchell et al. 2019, "Model Cards for Model Reporting": what it is, its data, its training, its
metrics, its intended use and its limits. What only people know is said not to be filled in. What does
not belong here: holdout metrics and the verdict, which are a run's and not the package's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from leptonflow.workloads import catalog
from leptonflow.workloads.base import Told
from schemas import own_model
from schemas.config import Pipeline
from schemas.export import Export
from schemas.records import FitResult, Lineage, ObjectRef, SnapshotRef
from schemas.text import counted, markdown
from schemas.training import COMPILED
from schemas.workloads import overall

MOST_LAYERS = 40
NOT_FILLED = "Not filled in: leptonflow records nothing about it. Whoever deploys this version is responsible for it."


class Network(NamedTuple):
    """The model as it is packaged; the sha256 of each file that it declares; how its user compiles it, if they do.

    export: what became of its export for ONNX Runtime.
    """

    model: Any
    files: Mapping[str, str]
    compilation: str | None
    export: Export


def card(
    config: Pipeline,
    version: str,
    run_id: str,
    snapshot: SnapshotRef,
    contract: Mapping[str, Any],
    cv: dict[str, dict[str, Any]],
    final: FitResult,
    lineage: Lineage,
    files: Sequence[ObjectRef],
    network: Network,
) -> str:
    """The card as Markdown. contract is contract.json; files are the package's others, keys relative to its folder."""
    told = catalog.load(config.workload).told(config.input)
    sections = [
        f"# {markdown(config.name)} {version}",
        f"A model of the workload `{config.workload}`: {told.what} in, {_out(snapshot, told)} out. "
        f"Trained by leptonflow's run {run_id}, finished at {lineage.finished_at}.",
        "## Data",
        _list(
            f"snapshot {snapshot.snapshot} (number {snapshot.number}), content sha256 {snapshot.content}",
            f"{counted(snapshot.examples, 'example')} in {counted(len(snapshot.batches), 'batch', 'batches')}: "
            f"{_names(snapshot.batches)}",
            f"{final.examples} of them for training; a holdout of the fraction {snapshot.holdout:g} was never "
            "trained on",
            f"data contract {contract['digest']}: {counted(len(contract['expectations']), 'expectation')}, and a batch "
            f"with more than {contract['quarantine']['limit']:g} of its rows in quarantine is refused; contract.json "
            "has it all",
        ),
        *_classes(snapshot),
        "## Training",
        _list(
            f"input {told.how}; what the model does to it first is a layer of it",
            f"model {_settings(own_model.effective(config.model))}",
            *_start(lineage),
            *_own(network),
            f"training {_settings(_training(config, network))}",
            f"the final fit took {final.seconds:.1f} s{_ended(final)}",
        ),
        "## Model",
        *_layers(network.model),
        "## Serving",
        _served(network.export),
        "## Cross-validation",
        f"Over {config.training.folds} {'stratified ' if snapshot.classes else ''}folds of the training examples; the "
        "standard deviation is the sample's. Its holdout metrics are in the report of each run that evaluated it.",
        _table(("metric", "mean", "std", "folds"), [_metric(name, cv[name]) for name in overall(cv)]),
        "## Intended use",
        NOT_FILLED,
        "## Limits and risks",
        NOT_FILLED + _limits(snapshot),
        "## Lineage",
        _list(*_lineage(lineage)),
        "## How to load it",
        f"`leptonflow predict {markdown(config.name)} FILE` uses the champion. Without leptonflow, from this folder:",
        f"```python\n{told.code}\n```",
        "leptonflow checks every file against the sha256 in manifest.json before it uses it:",
        _table(("file", "bytes", "sha256"), [(markdown(f.key), str(f.bytes), f.sha256) for f in files]),
    ]
    return "\n\n".join(sections) + "\n"


def _ended(final: FitResult) -> str:
    """After how many epochs, which weights early stopping kept, and what auto was as the precision."""
    last = max((each.epoch for each in final.epochs), default=0)
    kept = "" if final.best_epoch is None else f", the weights of epoch {final.best_epoch} were kept"
    computed = "" if final.precision is None else f", computed in {final.precision}"
    return f" and {counted(last, 'epoch')}{kept}{computed}" if last else ""


def _out(snapshot: SnapshotRef, told: Told) -> str:
    return f"one of {len(snapshot.classes)} classes" if snapshot.classes else told.out


def _own(network: Network) -> list[str]:
    """What of the user's own is in the model, besides code."""
    files = [f"declared file {markdown(name)} sha256 {digest}" for name, digest in network.files.items()]
    return [*files, *([] if network.compilation is None else [markdown(network.compilation)])]


def _start(lineage: Lineage) -> list[str]:
    """What the final fit started from, and what of it did not fit."""
    start = lineage.start
    if start is None:
        return []
    name = f"the version {start.version}" if start.version else f"the file {markdown(start.file or '')}"
    told = f"the final fit started from {name}, sha256 {start.sha256}: {start.layers} of {start.of} layers"
    unknown = "" if start.version else "; what that learned from is not known here"
    return [told + unknown, *(markdown(each) for each in start.mismatches[:MOST_LAYERS])]


def _training(config: Pipeline, network: Network) -> dict[str, Any]:
    """The section, without what had no effect on a model that its user compiles."""
    given = config.training.model_dump(mode="json")
    return given if network.compilation is None else {k: v for k, v in given.items() if k not in COMPILED}


def _layers(model: Any) -> list[str]:
    """The model's input, output and parameters, and its layers; a model within it counts as one."""
    rows = [
        (markdown(each.name), type(each).__name__, _shape(getattr(each, "output", None)), f"{_parameters(each):,}")
        for each in model.layers[:MOST_LAYERS]
    ]
    goes, comes = (", ".join(map(_shape, getattr(model, ends, None) or ("-",))) for ends in ("inputs", "outputs"))
    return [
        f"{markdown(model.name)}: {goes} in, {comes} out, N examples each. {len(model.layers)} layers with "
        f"{_parameters(model):,} parameters" + (":" if len(rows) == len(model.layers) else f"; the first {len(rows)}:"),
        _table(("layer", "kind", "output", "parameters"), rows),
    ]


def _served(export: Export) -> str:
    """What computes its predictions where it is served."""
    if export.reason is not None:
        why = f"There is no model.onnx, and Keras serves it: {markdown(export.reason)}."
        return f"{why} A package stays as it is: the next version is exported anew, also one of another training.seed."
    features = "" if export.features is None else f", and the {export.features} numbers that its last layer gets"
    return (
        f"model.onnx ({export.bytes} bytes) gives the same predictions{features} in ONNX Runtime, which serves it. "
        f"It differed from Keras by no more than {export.difference:.2g} on the reference examples; 95 of 100 single "
        f"predictions took up to {export.latency_ms} ms there."
    )


def _parameters(layer: Any) -> int:
    return sum(math.prod(each.shape) for each in layer.weights)


def _shape(tensor: Any) -> str:
    """Such as (N, 28, 28, 1) uint8; of a layer with several outputs or none: -."""
    if not hasattr(tensor, "shape"):
        return "-"
    return f"({', '.join('N' if size is None else str(size) for size in tensor.shape)}) {tensor.dtype}"


def _classes(snapshot: SnapshotRef) -> list[str]:
    if not snapshot.classes:
        return []
    return ["## Classes", "In the order of the model's outputs: " + _names(snapshot.classes, most=1000) + "."]


def _limits(snapshot: SnapshotRef) -> str:
    if not snapshot.classes:
        return ""
    return " What is known: it predicts one of its classes for every example, also for one of no class."


def _lineage(lineage: Lineage) -> list[str]:
    """Each fact of where a version comes from, one a line; what is not known is said so."""
    machine = lineage.hardware
    dirty = {True: ", with changes that are not committed", False: "", None: ""}[lineage.git_dirty]
    return [
        *(f"code `{name}` sha256 {value}" for name, value in sorted(lineage.code.items())),
        f"git commit {lineage.git_commit or 'not known'}{dirty}",
        f"requirements.lock sha256 {lineage.lock or 'not known'}",
        f"seed {lineage.seed}",
        f"{machine.cpus} CPUs of {markdown(machine.cpu or machine.machine)}, {markdown(machine.system)}; "
        f"accelerators: {', '.join(markdown(name) for name in machine.accelerators) or 'none'}",
        ", ".join(f"{name} {number}" for name, number in lineage.libraries.items()),
        f"begun at {lineage.started_at or 'not known'}, finished at {lineage.finished_at}",
    ]


def _names(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(markdown(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {markdown(str(value))}" for name, value in _flat(values) if value is not None)


def _flat(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Each value with the path of its key: a section of its own in it, such as optimizer, is told key by key."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else None
        found += [(name, value)] if inner is None else [(f"{name}.{key}", each) for key, each in inner]
    return found


def _list(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _metric(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "not known" if value is None else f"{value:.4f}"

    return name, number(result["mean"]), number(result["std"]), ", ".join(number(v) for v in result["folds"])
