"""The best trial as a YAML to review: the pipeline's own text with other values, its comments kept.

What is best does not belong here (study_records), nor does asking whether a file may be overwritten.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from schemas import tuning, yaml_text
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError
from schemas.text import printable
from schemas.trials import Trial

TUNED = "Tuned by the study"
SUFFIX = ".tuned.yaml"  # which is no pipeline of its own: core.pipeline_files


def path(of: Path) -> Path:
    """Where the tuned YAML of a pipeline's YAML lies."""
    return of.with_name(f"{of.stem}{SUFFIX}")


def text(source: str, config: Pipeline, trial: Trial, comment: str) -> str:
    """The YAML with the trial's values, below a comment that begins with TUNED and goes on with `comment`.

    Where its text cannot be changed value by value (an anchor, an optimizer that becomes a mapping), it is written anew
    and has no comments.
    """
    wanted = tuning.changed(trial.parameters, config.training, config.model)
    found = dict(tuning.places(config.tune, config.training, config.model))
    values = tuning.in_order(trial.parameters)
    made = source
    for key, value in values:
        if value != tuning.current(key, config.training, config.model):
            made = _with(made, found[key], value)
    if not _says(made, config, wanted):
        made = _anew(source, {found[key]: value for key, value in values})
    if made.startswith(f"# {TUNED}"):  # of the study before
        made = made.partition("\n")[2]
    return f"# {TUNED} {printable(comment)}\n{made}"


def difference(before: str, after: str) -> list[str]:
    """The lines that differ, as a unified diff without context; the comment is not one of them."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]
    return [line for line in lines if not line.startswith(("@@", f"+# {TUNED}", f"-# {TUNED}"))]


def _says(made: str, config: Pipeline, wanted: tuning.Changed) -> bool:
    """Whether a reader of this text gets the sections that are wanted, and else what was there."""
    try:
        document = yaml_text.load(made.encode(), "the YAML")
        found = parse(document.value, where="the YAML", folder=config.folder, lines=document)
    except ConfigurationError:
        return False
    same = config.model_copy(update={"training": wanted.training, "model": wanted.model})
    return bool(found.model_dump(mode="json") == same.model_dump(mode="json") and found.limits == config.limits)


def _anew(source: str, values: Mapping[tuple[str, ...], Any]) -> str:
    document = yaml_text.load(source.encode(), "the YAML").value
    for place, value in values.items():
        at = document
        for key in place[:-1]:
            inner = at.get(key)
            if key == "optimizer" and not isinstance(inner, Mapping):  # its name, with the learning rate beside it
                rate = at.pop("learning_rate", None)
                inner = {"name": inner or "adam", **({} if rate is None else {"learning_rate": rate})}
            at[key] = {} if inner is None else dict(inner)
            at = at[key]
        at[place[-1]] = value
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _with(source: str, place: tuple[str, ...], value: Any) -> str:
    """The text with this value at a path of keys, which is added where it is not there."""
    try:
        node = yaml.compose(source, yaml_text.Loader)
    except yaml.YAMLError:  # what an earlier value has made of it: it is written anew
        return source
    for depth, key in enumerate(place):
        if not isinstance(node, yaml.MappingNode):
            return _replaced(source, node, _nested(place[depth:], value))
        inner = _value(node, key)
        if inner is None:
            return _added(source, node, key, _nested(place[depth + 1 :], value))
        node = inner
    return _replaced(source, node, value)


def _value(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for name, value in node.value if name.value == key), None)


def _nested(keys: tuple[str, ...], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _replaced(source: str, node: yaml.Node | None, value: Any) -> str:
    if node is None:
        return source
    start, end = node.start_mark.index, _end(node)
    space = "" if source[start - 1].isspace() else " "  # a key without a value ends at its colon
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        space = "  "  # the dashes of a list may stand right below its key, a list in one line may not
    return f"{source[:start]}{space}{_flow(value)}{source[end:]}"


def _added(source: str, node: yaml.MappingNode, key: str, value: Any) -> str:
    start = node.start_mark.index
    if node.flow_style:
        more = ", " if node.value else ""
        return f"{source[: start + 1]}{key}: {_flow(value)}{more}{source[start + 1 :]}"
    if not node.start_mark.column:  # of the whole file: below all that is there
        return f"{source.rstrip()}\n\n{key}: {_flow(value)}\n"
    return f"{source[:start]}{key}: {_flow(value)}\n{' ' * node.start_mark.column}{source[start:]}"


def _end(node: yaml.Node) -> int:
    """Where the node's own text ends: that of a block would go on to the next key, comments included."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _flow(value: Any) -> str:
    """As it stands in one line: plain words and numbers as people write them, the rest as JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    plain = isinstance(value, str) and value.isidentifier() and value.lower() not in ("true", "false", "null")
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
