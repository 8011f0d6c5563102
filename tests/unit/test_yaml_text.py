"""YAML as people write it: numbers, keys and text that no reader takes otherwise, and one line for the rest."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import yaml_text
from schemas.errors import ConfigurationError


def load(text: str | bytes) -> Any:
    return yaml_text.load(text if isinstance(text, bytes) else text.encode(), "p.yaml").value


def refused(text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    line = caught.value.line()
    assert "p.yaml" in line and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-1.5e+3", -1500.0), ("1.0e3", 1000.0), ("+3", 3),
        ("10", 10), ("0", 0), ("-0.5", -0.5), ("0.05", 0.05), (".inf", float("inf")), ("true", True), ("False", False),
        ("~", None), ("null", None), ("", None),
        # text
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("2024-01-01", "2024-01-01"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"), ("1.2.3", "1.2.3"), ("089", "089"), ("0:30", "0:30"),
        ("=", "="), ("1e", "1e"), ("e3", "e3"), ("'010'", "010"), ('"1e3"', "1e3"), ("NO", "NO"), ("-", [None]),
        ("Über", "Über"),
    ],
)  # fmt: skip
def test_a_value_is_what_people_write(text: str, value: object) -> None:
    found = load(f"a: {text}" if text != "-" else "a:\n  -")["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["010", "-07", "0b11", "0x1F", "1_000", "1_0.5", "1:30", "190:20:30", "1:30.5", "0_7", "1.5_0", "+1:2"]
)
def test_a_number_that_another_reader_takes_otherwise_is_an_error_with_its_line(text: str) -> None:
    told = refused(f"a: 1\nb: [2, {text}]\n")
    assert "(line 2)" in told and text in told
    assert load(f"a: '{text}'") == {"a": text}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gate: 1\nb: 2\ngate: 3\n", "the key gate stands twice (lines 1 and 3)"),
        ("training:\n  epochs: 1\n  epochs: 2\n", "the key training.epochs stands twice (lines 2 and 3)"),
        ("gate:\n  - {rule: a, rule: b}\n", "the key gate.0.rule stands twice (lines 2 and 2)"),
        ("a: 1\n'a': 2\n", "the key a stands twice"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a:\n\tb: 1\n", "(line 2)"),
        ("a: [1, 2\nb: 3\n", "(line 2)"),
        ("a: *b\n", "undefined alias"),
        ("a: !!python/object:os.system x\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("a: !!bool maybe\n", "true or false"),
        ("a: !!int '0x10'\n", "a number"),
        ("a: 1e999\n", "too large"),
        (f"a: {'9' * 5000}\n", "a number"),
        ("? [a, b]\n: 1\n", "a key that is text"),
        ("a: &x [*x]\n", "nested too deeply"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        (b"a: 1\nb: \xff\n", "not UTF-8 text (line 2)"),
        ("name: p\n".encode("utf-16"), "not UTF-8"),
        ("a: \x00\n", "cannot be read as YAML"),
        ("a: 1\r\nb: 2\r\na: 3\r\n", "(lines 1 and 3)"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(text: str | bytes, told: str) -> None:
    assert told in refused(text)


def test_aliases_are_no_bomb() -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "too large" in refused("\n".join(levels))


def test_an_alias_a_merge_and_a_byte_order_mark_are_read() -> None:
    text = "\ufeffbase: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nlist: *b\n"
    assert load(text) == {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "list": {"x": 1, "y": 2}}
    assert load("") is None and load("# nothing\n") is None


def test_a_path_has_its_line_or_that_of_the_key_above() -> None:
    found = yaml_text.load(b"a: 1\ngate:\n  - rule: x\n    value: 2\n", "p.yaml")
    assert [found.line(path) for path in ("gate.0.value", "gate.0.on", "gate.0", "b")] == [
        " (line 4)", " (line 3)", " (line 3)", ""
    ]  # fmt: skip
