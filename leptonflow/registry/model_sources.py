"""source.zip of a package: the user's own code, and the files and weights that it declares, as they were trained with.

Names in it are paths from the folder of the YAML, so that the code finds what lies beside it there too. What does not
belong here: whether it may be run (packages).
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from leptonflow.core import declared_files
from leptonflow.core.code_digests import user_code
from leptonflow.workloads import user_model, user_weights
from schemas.config import Pipeline, parse

FETCHED = "fetched-weights"  # the folder of weights that did not lie beside the YAML
MADE = (1980, 1, 1, 0, 0, 0)  # the same files are the same bytes, whenever they were packed


def archive(config: Pipeline) -> bytes | None:
    """The archive, not compressed; None where nothing of the user's own is in the model."""
    paths = {**_portable(config, user_code(config)), **declared_files.declared(config)}
    weights = user_weights.path(config)
    if weights is not None and weights not in paths.values():
        paths[f"{FETCHED}/{weights.name}"] = weights
    if not paths:
        return None
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, path in sorted(paths.items()):
            file.writestr(zipfile.ZipInfo(name, MADE), path.read_bytes())
    return target.getvalue()


def _portable(config: Pipeline, code: dict[str, Path]) -> dict[str, Path]:
    """Without installed packages that have compiled parts: their copy could not be imported."""
    kept = {}
    for name, path in code.items():
        depth = len(Path(name).parts)
        installed = depth > 1 and not path.is_relative_to(config.folder)
        if not (installed and any(each.suffix in (".so", ".pyd") for each in path.parents[depth - 2].rglob("*"))):
            kept[name] = path
    return kept


@contextmanager
def objects(data: bytes, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The version's custom objects, of the code in its archive; none of an empty one. config: as it was recorded.

    Its files lie there within the block: a layer may read one as it is made. Raises ConfigurationError where the code
    does not run.
    """
    if not data:
        yield {}
        return
    recorded = parse(dict(config), where="the package's configuration", folder=Path())
    with unpacked(data, recorded) as there, user_model.importing(there):
        yield user_model.objects(there)


@contextmanager
def unpacked(data: bytes | None, config: Pipeline) -> Iterator[Pipeline]:
    """The configuration with the unpacked archive as its folder; as it is where there is no archive."""
    if data is None:
        yield config
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(BytesIO(data)) as file:
        file.extractall(folder)  # it keeps every name within the folder
        changed = {"folder": Path(folder)}
        weights = getattr(config.model, "weights", None)
        if weights is not None and not isinstance(weights, str):
            local = f"{FETCHED}/{weights.name}"
            changed["model"] = config.model.model_copy(update={"weights": local})
        yield config.model_copy(update=changed)
