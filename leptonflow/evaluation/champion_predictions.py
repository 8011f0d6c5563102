"""The champion's predictions for files of the user's: the same decoding and the same package as in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from leptonflow.core import files
from leptonflow.data.ingest import folder_walk, layouts
from leptonflow.registry import champion_log, intact_champions, packages
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound

TOGETHER = 512  # examples


def predict(store: Store, config: Pipeline, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """[{file, label, probability, version, error}], in the order given; of a folder all that lies in it, by name.

    Raises NotFound without a champion; Damaged where its package is not whole, with the newest that is.
    """
    log = champion_log.promotions(store, config.name, complete=True)
    champion = champion_log.champion(log)
    if champion is None:
        raise NotFound(
            f"the pipeline {config.name} has no champion",
            expected="a promoted version",
            received="none yet",
            hint=f"Run `leptonflow retrain {config.name}`",
        )
    workload = catalog.load(config.workload)
    try:
        manifest = packages.manifest(store, config.name, champion.version)
    except (Damaged, NotFound) as error:
        raise intact_champions.damaged(store, config.name, log, champion.version, error) from error
    found = list(_files(paths))
    answers: list[dict[str, Any]] = [
        {"file": shown, "label": None, "probability": None, "version": champion.version, "error": why}
        for shown, _, why in found
    ]
    readable = [(answer, file) for answer, (_, file, why) in zip(answers, found, strict=True) if why is None]
    package: packages.Package | None = None
    for start in range(0, len(readable), TOGETHER):
        examples = []
        for answer, file in readable[start : start + TOGETHER]:
            try:
                examined = workload.examine(files.read(file, files.IMAGE), manifest.input)
            except OSError as error:
                answer["error"] = f"cannot be read: {error.strerror or error}"
                continue
            if examined.rule is not None or examined.encoded is None:
                answer["error"] = f"{examined.rule}: {examined.reason}"
                continue
            examples.append((answer, examined.encoded))
        if not examples:
            continue
        try:
            package = package or packages.load(store, config.name, champion.version, champion.manifest_sha256)
        except (Damaged, NotFound) as error:
            raise intact_champions.damaged(store, config.name, log, champion.version, error) from error
        probabilities = package.predict(workload.codec.stack([each for _, each in examples], manifest.input))
        for (answer, _), row in zip(examples, probabilities, strict=True):
            best = int(row.argmax())
            answer.update(label=manifest.classes[best], probability=float(row[best]))
    return answers


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, Path, str | None]]:
    """(the name to show, the file to read, why it is not read) of each; hidden files and litter of a folder apart."""
    for path in paths:
        if not path.is_dir():
            yield str(path), path, None
            continue
        try:
            found = folder_walk.walk(str(path))
        except OSError as error:
            yield str(path), path, f"cannot be read: {error.strerror or error}"
            continue
        inside: dict[str, tuple[Path, str | None]] = {
            each.name: (Path(each.real), None) for each in found.files if not layouts.is_litter(each.name)
        }
        inside |= {name: (path, f"{each.rule}: {each.reason}") for name, each in found.refused.items()}
        if not inside:
            yield str(path), path, "the folder holds no example"
        for name, (file, why) in sorted(inside.items()):
            yield str(path / name), file, why
