"""The champion's answer for files of the user's: the same decoding and the same package as in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leptonflow import files, packages, registry, whole, workloads
from leptonflow.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound


def predict(store: Store, config: Pipeline, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """[{file, label, probability, version, error}], in the order given.

    Raises NotFound without a champion; Damaged where its package is not whole, with the newest that is.
    """
    log = registry.promotions(store, config.name, complete=True)
    champion = registry.champion(log)
    if champion is None:
        raise NotFound(
            f"the pipeline {config.name} has no champion",
            expected="a promoted version",
            received="none yet",
            hint=f"Run `leptonflow retrain {config.name}`",
        )
    import numpy as np

    workload = workloads.load(config.workload)
    try:
        manifest = packages.manifest(store, config.name, champion.version)
    except (Damaged, NotFound) as error:
        raise whole.damaged(store, config.name, log, champion.version, error) from error
    answers: list[dict[str, Any]] = []
    images = []
    for file in paths:
        answer: dict[str, Any] = {
            "file": str(file),
            "label": None,
            "probability": None,
            "version": champion.version,
            "error": None,
        }
        answers.append(answer)
        try:
            examined = workload.examine(files.read(file, files.IMAGE), manifest.input)
        except OSError as error:
            answer["error"] = f"cannot be read: {error.strerror or error}"
            continue
        if examined.rule is not None or examined.encoded is None:
            answer["error"] = f"{examined.rule}: {examined.reason}"
            continue
        images.append((answer, np.frombuffer(examined.encoded, np.uint8).reshape(manifest.input)))
    if images:
        try:
            package = packages.load(store, config.name, champion.version, champion.manifest_sha256)
        except (Damaged, NotFound) as error:
            raise whole.damaged(store, config.name, log, champion.version, error) from error
        probabilities = package.predict(np.stack([pixels for _, pixels in images]))
        for (answer, _), row in zip(images, probabilities, strict=True):
            best = int(row.argmax())
            answer.update(label=manifest.classes[best], probability=float(row[best]))
    return answers
