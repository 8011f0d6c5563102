"""Makes a trained version a package: its files, each adopted where it lies there already, and the manifest last.

What a package holds is listed in `packages`, which reads it. What does not belong here: training (model_fits), and
which version is the champion (champion_log).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from leptonflow.core import clock, declared_files, store_keys
from leptonflow.core.code_digests import code_digests, libraries
from leptonflow.core.hashing import canonical, sha256
from leptonflow.core.request_process import RequestProcess
from leptonflow.data.validation import contracts
from leptonflow.keras_runtime import keras_models
from leptonflow.registry import lineage, model_cards, model_sources, onnx_files, packages
from leptonflow.storage.objects import adopt, recorded
from leptonflow.storage.store import Store
from leptonflow.training import model_fits
from leptonflow.training.workspace import MODEL_LOCK, Workspace
from leptonflow.workloads import catalog, user_model
from schemas import constants, own_model
from schemas.config import Pipeline
from schemas.errors import NotFound, TrainingError
from schemas.export import Export
from schemas.records import FitResult, Lineage, ModelManifest, ObjectRef, PackageRef, Plan, SnapshotRef
from schemas.text import counted

if TYPE_CHECKING:
    from leptonflow.data.dataset.example_sets import Examples

REFERENCE_EXAMPLES = 64


def build(
    store: Store, config: Pipeline, plan: Plan, workspace: Workspace | None = None,
    process: RequestProcess | None = None,
) -> PackageRef:  # fmt: skip
    """Make the finished final fit an immutable version; what lies there is adopted. Safe to repeat.

    workspace: the plan's in this process. process: one that holds Keras and exports the model; it is not ended.

    Raises TrainingError where a fold or the final fit is not finished.
    """
    version, snapshot = model_fits.planned(plan)
    try:
        return packages.reference(store, config.name, version)
    except NotFound:
        pass
    folds, final = _finished_fits(store, config, version)
    cv = model_fits.cross_validation(folds)
    put = partial(_adopted, store, config.name, version)
    workspace = workspace or Workspace()
    files = _files(store, config, snapshot, cv, folds, final)
    workspace.check_own_files(config)  # of which `files` has a copy now
    lying = {name: put(name, data) for name, data in files.items()}
    examples = workspace.examples(store, config, snapshot)
    model = packages.loaded(lying["model.keras"], lying.get(packages.SOURCE, b""), user_model.objects(config))
    vocabulary = lying["vocabulary.json"].decode() if "vocabulary.json" in lying else None
    lying["reference.parquet"] = put("reference.parquet", write_reference(config, model, vocabulary, examples))
    lying |= onnx_files.files(config, lying, put, process)
    code = {name: value for name, value in code_digests(config).items() if name != "gate"}
    # A second writer was trained elsewhere and at another time: the card and the manifest tell of the first.
    mine = lineage.lineage(store, config, plan, snapshot, code, final.start)
    lying["lineage.json"] = put("lineage.json", canonical(mine))
    origin = Lineage.model_validate_json(lying["lineage.json"])
    refs = tuple(_reference(name, data) for name, data in lying.items())
    contract = json.loads(lying["contract.json"])
    export = Export.model_validate_json(lying[packages.EXPORT])
    network = model_cards.Network(model, declared_files.digests(config), _compilation(config, snapshot), export)
    card = model_cards.card(config, version, plan.run_id or "", snapshot, contract, cv, final, origin, refs, network)
    refs = (*refs, _reference("model_card.md", put("model_card.md", card.encode())))
    manifest = ModelManifest(
        pipeline=config.name,
        version=version,
        run_id=plan.run_id or "",
        workload=config.workload,
        classes=snapshot.classes,
        input=config.input,
        preprocessing=snapshot.preprocessing,
        snapshot=snapshot.snapshot,
        snapshot_number=snapshot.number,
        config=json.loads(lying["config.json"]),
        cv=cv,
        code=code,
        lineage=origin,
        libraries=libraries(),
        files=refs,
        created_at=clock.now(),
        number=_number(store, config.name),
        split_rule=constants.SPLIT_RULE,
    )
    return packages.package_ref(config.name, version, put("manifest.json", canonical(manifest)))


def _compilation(config: Pipeline, snapshot: SnapshotRef) -> str | None:
    """How the user's own code compiles the model; None where it does not."""
    if not own_model.functions(config.model):
        return None
    with MODEL_LOCK:
        return user_model.compilation(config, catalog.load(config.workload).build(config, snapshot.classes))


def _finished_fits(store: Store, config: Pipeline, version: str) -> tuple[list[FitResult], FitResult]:
    """(the folds, the final fit) of a version. Raises TrainingError where one is not finished."""
    fits = [model_fits.fit_result(store, config.name, version, fold) for fold in range(config.training.folds)]
    finished = [fit for fit in fits if fit is not None]
    final = model_fits.fit_result(store, config.name, version, None)
    if final is None or len(finished) < len(fits):
        raise TrainingError(
            f"the version {version} is not trained yet",
            expected=f"{len(fits)} finished folds and a final fit",
            received=f"{counted(len(finished), 'fold')} and {'a' if final else 'no'} final fit",
            hint=f"Run `leptonflow retrain {config.name}`",
        )
    return finished, final


def _files(
    store: Store,
    config: Pipeline,
    snapshot: SnapshotRef,
    cv: dict[str, dict[str, Any]],
    folds: Sequence[FitResult],
    final: FitResult,
) -> dict[str, bytes]:
    """The package's files that follow from the plan and its fits alone."""
    workload = catalog.load(config.workload)
    preprocessing = {
        "input": config.input,
        "workload": workload.name,
        "preprocessing_version": workload.preprocessing_version,
        "digest": snapshot.preprocessing,
    }
    vocabulary = {}
    if workload.vocabulary is not None:
        file = final.files[1]
        vocabulary = {"vocabulary.json": recorded(store, file.key, file.sha256, packages.OTHER)}
    own = model_sources.archive(config)
    return {
        "model.keras": recorded(store, final.files[0].key, final.files[0].sha256, packages.OTHER),
        "preprocessing.json": canonical(preprocessing),
        "labels.json": canonical(snapshot.classes),
        "contract.json": canonical(_contract(config)),
        "config.json": canonical(config),
        "metrics.json": canonical(_metrics(cv, folds, final)),
        **vocabulary,
        **({} if own is None else {packages.SOURCE: own}),
    }


def _adopted(store: Store, pipeline: str, version: str, name: str, data: bytes) -> bytes:
    """What lies under that name in the package: `data`, or what an earlier writer put there."""
    return adopt(store, store_keys.package_key(pipeline, version, name), data)


def _number(store: Store, pipeline: str) -> int:
    """One more than the pipeline has packages."""
    there = store.keys(store_keys.packages_folder(pipeline))
    return sum(key.endswith("/manifest.json") for key in there) + 1


def _contract(config: Pipeline) -> dict[str, Any]:
    """contract.json: the data contract in force when the version was packaged, and its digest as `batches` has it.

    {digest, expectations, quarantine: {limit}, classes, checks_version, group}: all that the digest covers. A batch
    that came earlier can have been accepted under another one, which the table `batches` names.
    """
    return {
        "digest": contracts.digest(config),
        **contracts.read_contract(config),
        "quarantine": config.quarantine.model_dump(mode="json"),
        "classes": config.classes,
        "checks_version": catalog.load(config.workload).checks_version,
        **({"group": config.group.model_dump(mode="json")} if config.group else {}),
    }


def _metrics(cv: dict[str, dict[str, Any]], folds: Sequence[FitResult], final: FitResult) -> dict[str, Any]:
    """metrics.json: what was measured while training. The holdout's metrics are a run's, not a package's."""
    kept = {"fold", "metrics", "examples", "seconds"}
    return {
        "cv": cv,
        "folds": [fit.model_dump(mode="json", include=kept) for fit in folds],
        "final": final.model_dump(mode="json", include={"examples", "seconds", "epochs"}),
    }


def _reference(name: str, data: bytes) -> ObjectRef:
    return ObjectRef(key=name, sha256=sha256(data), bytes=len(data))


def write_reference(config: Pipeline, model: Any, vocabulary: str | None, examples: Examples) -> bytes:
    """Some training examples and the probabilities that the packaged model gives for them, as Parquet.

    It lets a fresh process check the package on the spot, with nothing of any run. Columns:
    example_id, the codec's column, probabilities (list of K float64).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    workload = catalog.load(config.workload)
    inputs = examples.inputs[:REFERENCE_EXAMPLES]  # sorted by id, a digest: these are of all classes
    rows = keras_models.predict(model, workload.encode(inputs, vocabulary, config.input))
    table = pa.table(
        {
            "example_id": pa.array(examples.ids[: len(inputs)], pa.string()),
            workload.codec.column: pa.array(workload.codec.raw(inputs), workload.codec.arrow(config.input)),
            "probabilities": pa.array(rows.tolist(), pa.list_(pa.float64())),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    return bytes(sink.getvalue())
