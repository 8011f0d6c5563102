"""The champion's predictions for examples of the user's: the same decoding and the same package as in evaluation.

How an example is named and read does not belong here (requested_examples).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonflow.data.ingest import array_files
from leptonflow.evaluation import explanations
from leptonflow.evaluation.requested_examples import Requested, requested
from leptonflow.registry import champion_log, intact_champions, packages
from leptonflow.registry.champion_log import Champion
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Examined, Workload
from schemas import own_model
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound, UsageError
from schemas.records import ModelManifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("file", "label", "probability", "version", "error")
TOGETHER = 512  # examples


def predict(store: Store, config: Pipeline, given: Sequence[str | Path], explain: bool = False) -> list[dict[str, Any]]:
    """A row of COLUMNS for each example, in the order given: files, folders, tables, typed examples.

    explain: each has `explanation` too, the document of `explanations`; null where there is no prediction.

    `file` is the path, in a table with the row's number, or the text that was typed.
    Raises NotFound without a champion; Damaged where its package is not whole, with the newest that is.
    """
    champion = current(store, config.name)
    return predict_given(store, config.name, champion, given, code=own_model.runs_code(config.model), explain=explain)


def current(store: Store, pipeline: str) -> Champion:
    """The pipeline's champion. Raises NotFound where it has none."""
    champion = champion_log.champion(champion_log.promotions(store, pipeline, complete=True))
    if champion is None:
        raise NotFound(
            f"the pipeline {pipeline} has no champion",
            expected="a promoted version",
            received="none yet",
            hint=f"Run `leptonflow retrain {pipeline}`; if its gate refused, `leptonflow explain {pipeline}` says why",
        )
    return champion


def predict_given(
    store: Store,
    pipeline: str,
    champion: Champion,
    given: Sequence[str | Path],
    paths_first: bool = True,
    code: bool = False,
    explain: bool = False,
) -> list[dict[str, Any]]:
    """As `predict`, by that champion. paths_first: see requested_examples; code: see packages.load."""
    manifest = _manifest(store, pipeline, champion)
    found = requested(given, catalog.load(manifest.workload), manifest.input, paths_first)
    return _rows(store, manifest, champion, found, code, explain)


def predict_array(store: Store, pipeline: str, champion: Champion, values: NDArray[Any]) -> list[dict[str, Any]]:
    """A row of COLUMNS for each of N examples, N x H x W or N x H x W x C with C 1, 3 or 4; `file` is array[i].

    Values are read as those of an `.npy` source: one scale for the whole array. Raises UsageError for another array.
    """
    pair = array_files.unlabelled(values)
    if pair.values is None:
        rule = pair.rules[0]
        raise UsageError(
            f"the array cannot be read: {rule[1] if rule else ''}",
            expected="N examples of one shape, as numbers", received=f"shape {values.shape} of {values.dtype}",
            hint="A single example is an array of one: example[None]",
        )  # fmt: skip

    def look(number: int, workload: Workload, given: Any) -> Examined:
        if workload.examine_array is None:
            raise UsageError("the champion takes no arrays", expected="files", received=f"an array of {values.dtype}")
        return workload.examine_array(pair.row(number), given, pair.scale)

    found = [(f"array[{n}]", partial(look, n)) for n in range(len(pair))]
    return _rows(store, _manifest(store, pipeline, champion), champion, found)


def _rows(
    store: Store,
    manifest: ModelManifest,
    champion: Champion,
    found: Sequence[Requested],
    code: bool = False,
    explain: bool = False,
) -> list[dict[str, Any]]:
    """found: what to show of each example, and how to read it, or why it is not read."""
    workload = catalog.load(manifest.workload)
    answers: list[dict[str, Any]] = [
        dict(zip(COLUMNS, (shown, None, None, champion.version, None), strict=True)) for shown, _ in found
    ]
    if explain:
        explanations.check(workload, len(found))  # before any of them is read
        for answer in answers:
            answer["explanation"] = None
    package: packages.Package | None = None
    for start in range(0, len(found), TOGETHER):
        examples = []
        for answer, (_, look) in list(zip(answers, found, strict=True))[start : start + TOGETHER]:
            try:
                examined = Examined(None, look) if isinstance(look, str) else look(workload, manifest.input)
            except OSError as error:
                examined = Examined(None, f"cannot be read: {error.strerror or error}")
            if examined.encoded is None:
                answer["error"] = examined.refusal
                continue
            examples.append((answer, examined.encoded))
        if not examples:
            continue
        try:
            package = package or packages.load(
                store, manifest.pipeline, champion.version, champion.manifest_sha256, code
            )
        except (Damaged, NotFound) as error:
            raise _damaged(store, manifest.pipeline, champion, error) from error
        inputs = workload.codec.stack([each for _, each in examples], manifest.input)
        for (answer, _), row in zip(examples, package.predict(inputs), strict=True):
            label, probability = workload.target.answer(row, manifest.classes)
            answer.update(label=label, probability=probability)
        if explain:
            why = explanations.explained(workload, inputs, manifest.input, package)
            for (answer, _), each in zip(examples, why, strict=True):
                answer["explanation"] = each
    return answers


def _manifest(store: Store, pipeline: str, champion: Champion) -> ModelManifest:
    try:
        return packages.manifest(store, pipeline, champion.version)
    except (Damaged, NotFound) as error:
        raise _damaged(store, pipeline, champion, error) from error


def _damaged(store: Store, pipeline: str, champion: Champion, error: Damaged | NotFound) -> Damaged:
    log = champion_log.promotions(store, pipeline, complete=True)
    return intact_champions.damaged(store, pipeline, log, champion.version, error)
