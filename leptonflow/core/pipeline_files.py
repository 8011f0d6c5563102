"""The pipelines' YAMLs of a folder: under pipelines/, also in folders of their own there, each called by its name.

What a YAML may say belongs to schemas.config.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from leptonflow.core import files
from schemas import own_model, yaml_text
from schemas.config import NAME, Pipeline, parse
from schemas.errors import ConfigurationError, UsageError
from schemas.training import check_compilation

PIPELINES = Path("pipelines")
PATTERNS = ("*.yaml", "*/*.yaml", "*/*/*.yaml")  # no deeper: whoever keeps data there has many files
_PIPELINE = re.compile(rb"^workload\s*:", re.MULTILINE)


def available(folder: Path = PIPELINES) -> dict[str, Path]:
    """Each name and its YAML, sorted. Below the folder itself only files that say `workload:` are pipelines.

    Raises UsageError where two folders have one of the same name; the folder's own is preferred to theirs.
    """
    found: dict[str, Path] = {}
    nested: dict[str, Path] = {}
    for path in sorted(path for pattern in PATTERNS for path in folder.glob(pattern)):
        if path.name.endswith((".contract.yaml", ".tuned.yaml")) or path.name.startswith("."):  # of an editor, macOS
            continue
        if path.parent == folder:
            found[path.stem] = path
        elif _says_workload(path):
            other = nested.setdefault(path.stem, path)
            if other != path and not (folder / path.name).exists():
                raise UsageError(
                    f"two pipelines are called {path.stem}",
                    expected=f"one YAML of each name below {folder}/",
                    received=f"{other} and {path}",
                    hint="Give one of them another name",
                )
    return dict(sorted({**nested, **found}.items()))


def find(name_or_path: str, folder: Path = PIPELINES) -> Path:
    """The YAML of that name below `folder`, or at that path.

    Raises UsageError where there is none, with the names that there are.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if not NAME.fullmatch(name_or_path):
            raise UsageError(
                "not a pipeline's name",
                expected=f"a name that matches {NAME.pattern}, or a path to a .yaml",
                received=name_or_path,
            )
        path = folder / f"{name_or_path}.yaml"
    if path.exists():
        return path
    there = available(folder)
    if name_or_path in there:
        return there[name_or_path]
    near = difflib.get_close_matches(path.stem, there, n=2)
    raise UsageError(
        "no such pipeline",
        expected=f"{'one of ' + ', '.join(there) if there else 'a name under pipelines/'}, or a path to a .yaml",
        received=name_or_path,
        hint=f"Did you mean {' or '.join(near)}?" if near else "`leptonflow init NAME` writes one to start from",
    )


def _says_workload(path: Path) -> bool:
    try:
        return path.is_file() and _PIPELINE.search(path.read_bytes()[: 1 << 20]) is not None
    except OSError:
        return False


def load_config(name_or_path: str) -> Pipeline:
    """The pipeline of that name under pipelines/, or of that YAML file.

    Raises UsageError where there is none, ConfigurationError where it is wrong.
    """
    path = find(name_or_path)
    try:
        data = files.read(path, files.TEXT)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read", expected="a pipeline's YAML", received=error.strerror or str(error)
        ) from None
    document = yaml_text.load(data, str(path))
    config = parse(document.value, where=str(path), folder=path.parent.absolute(), lines=document)
    if own_model.functions(config.model).get("compile"):
        check_compilation(config.training, "model.compile", str(path), document)
    return config
