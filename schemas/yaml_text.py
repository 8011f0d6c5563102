"""YAML as people write it: 1.2's booleans and numbers, each key once, nothing that another reader takes otherwise.

`no` and `on` are text, `1e-3` is a number, a date is text. What YAML 1.1 reads as octal or base 60, and numbers with
underscores, are errors that name their line. What does not belong here: what the keys mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from schemas.errors import ConfigurationError

NODES = 100_000  # aliases unfolded
DEPTH = 50
NUMBER = "leptonflow:ambiguous"
CORE = "tag:yaml.org,2002:"


class Yaml(NamedTuple):
    """A document, and of each key's path, such as gate.0.metric, the line on which it stands."""

    value: Any
    lines: Mapping[str, int]

    def line(self, path: str) -> str:
        """` (line 7)` for a path, or for the nearest key above it; empty where there is none."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return f" (line {self.lines[path]})" if path else ""


def load(data: bytes, where: str) -> Yaml:
    """The one document in `data`. Raises ConfigurationError, which names `where` and the line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{where} is not UTF-8 text (line {line})", expected="text in UTF-8",
            received=f"the byte 0x{data[error.start]:02x}", hint="Save it as UTF-8",
        ) from None  # fmt: skip
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Yaml(None, {})
            lines = _Walk(where).lines_of(node)
            return Yaml(loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except RecursionError:
        raise _nested(where) from None
    except _Unreadable as error:
        raise ConfigurationError(
            f"{where} has a value that cannot be read (line {error.line})", expected=error.expected,
            received=error.received,
        ) from None  # fmt: skip
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" (line {mark.line + 1})" if mark is not None else ""
        told = getattr(error, "problem", None) or str(error)
        if "'\\t'" in told:
            told = "a tab where spaces indent"
        if getattr(error, "context", None) == "expected a single document in the stream":
            told = "another document, after ---"
        raise ConfigurationError(
            f"{where} cannot be read as YAML{at}", expected="one YAML mapping", received=" ".join(told.split())
        ) from None


class _Unreadable(yaml.YAMLError):
    """A value, and what it should have been."""

    def __init__(self, node: yaml.Node, expected: str, received: str) -> None:
        super().__init__(received)
        self.line = node.start_mark.line + 1
        self.expected = expected
        self.received = received[:80]


class Loader(yaml.SafeLoader):
    """Plain values alone: no dates, no binary, no tags of a program's."""


Loader.yaml_implicit_resolvers = {}
Loader.yaml_constructors = {}


def _number(loader: Loader, node: yaml.ScalarNode) -> int | float:
    text = node.value.lower()
    try:
        if re.fullmatch(r"[-+]?[0-9]+", text):
            return int(text)
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _Unreadable(node, "a number", node.value) from None
    if math.isinf(value) and "inf" not in text:
        raise _Unreadable(node, "a number that is not too large", node.value)
    return value


def _ambiguous(loader: Loader, node: yaml.ScalarNode) -> None:
    expected = "a number in plain digits, or text in quotes: readers of YAML take this for different numbers"
    raise _Unreadable(node, expected, node.value)


def _boolean(loader: Loader, node: yaml.ScalarNode) -> bool:
    if node.value.lower() not in ("true", "false"):
        raise _Unreadable(node, "true or false", node.value)
    return bool(node.value.lower() == "true")


def _unknown(loader: Loader, node: yaml.Node) -> None:
    raise _Unreadable(node, "a value without a tag of its own", f"the tag {node.tag}")


def _nested(where: str) -> ConfigurationError:
    return ConfigurationError(f"{where} is nested too deeply", expected=f"at most {DEPTH} levels, no part of itself")


for _name, _text, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
):
    Loader.add_implicit_resolver(CORE + _name, re.compile(f"(?:{_text})$"), _first)
# YAML 1.1's other numbers, as PyYAML reads them: octal, binary, hexadecimal, base 60, with underscores.
Loader.add_implicit_resolver(
    NUMBER,
    re.compile(
        r"[-+]?(?:0[0-7_]+|0b[01_]+|0x[0-9a-fA-F_]+|[1-9][0-9]*_[0-9_]*|[0-9][0-9_]*_[0-9_]*\.[0-9_]*"
        r"|[0-9]*\.[0-9]+_[0-9_]*|[1-9][0-9_]*(?::[0-5]?[0-9])+|[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)$"
    ),
    list("-+.0123456789"),
)
for _name, _make in (
    ("null", yaml.SafeLoader.construct_yaml_null), ("str", yaml.SafeLoader.construct_yaml_str),
    ("seq", yaml.SafeLoader.construct_yaml_seq), ("map", yaml.SafeLoader.construct_yaml_map),
    ("int", _number), ("float", _number), ("bool", _boolean),
):  # fmt: skip
    Loader.add_constructor(CORE + _name, _make)
Loader.add_constructor(NUMBER, _ambiguous)
Loader.add_constructor(None, _unknown)


class _Walk:
    """Counts a document's nodes with its aliases unfolded, and finds keys that stand twice."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._count = 0
        self._lines: dict[str, int] = {}

    def lines_of(self, node: yaml.Node) -> dict[str, int]:
        """The line of each key and item."""
        self._visit(node, (), 0)
        return self._lines

    def _visit(self, node: yaml.Node, path: tuple[str, ...], depth: int) -> None:
        self._count += 1
        if depth > DEPTH:
            raise _nested(self._where)
        if self._count > NODES:
            raise ConfigurationError(f"{self._where} is too large", expected=f"at most {NODES:,} values with aliases")
        if isinstance(node, yaml.MappingNode):
            self._keys(node, path)
            for key, value in node.value:
                inner = path if key.tag == f"{CORE}merge" else (*path, str(key.value))
                self._lines.setdefault(".".join(inner), key.start_mark.line + 1)
                self._visit(value, inner, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                inner = (*path, str(number))
                self._lines.setdefault(".".join(inner), item.start_mark.line + 1)
                self._visit(item, inner, depth + 1)

    def _keys(self, node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        seen: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Unreadable(key, "a key that is text", "a list or a mapping")
            line = key.start_mark.line + 1
            if earlier := seen.get((key.tag, key.value)):
                raise ConfigurationError(
                    f"{self._where}: the key {'.'.join((*path, key.value))} stands twice (lines {earlier} and {line})",
                    expected="each key once", hint="Remove one of them",
                )  # fmt: skip
            seen[key.tag, key.value] = line
