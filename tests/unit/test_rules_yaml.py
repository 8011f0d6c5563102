"""A gate's rules as they are written: the example of the documentation, defaults, and one clear line for the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leptonflow.core.hashing import digest
from leptonflow.gate.decision import EVALUATE
from leptonflow.statistics import power
from schemas import yaml_text
from schemas.config import Pipeline, parse
from schemas.errors import ConfigurationError
from schemas.rules import KINDS

ROOT = Path(__file__).parent.parent.parent


def gate(*rules: dict[str, Any], **keys: Any) -> Pipeline:
    document = {"name": "p", "workload": "image_classification", "input": [8, 8, 1], "gate": list(rules), **keys}
    return parse(document, where="p.yaml", folder=Path())


def test_the_documented_gate_is_one_and_names_every_rule() -> None:
    text = (ROOT / "docs" / "gate-rules.md").read_text()
    found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    blocks = [yaml_text.load(block.encode(), "docs").value for block in found]
    config = parse({key: value for block in blocks for key, value in block.items()}, where="docs", folder=Path())
    assert config.stop_early_if is not None
    assert {rule.rule for rule in config.gate} == set(KINDS)
    assert set(EVALUATE) == set(KINDS.values()), "each kind of rule is evaluated"
    for name, kind in KINDS.items():
        assert re.search(rf"^\| [^|]*`{name}`", text, re.MULTILINE), name
        keys = set(kind.model_fields) - {"rule"}
        row = next(line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1])
        assert all(key in row for key in keys - {"metric"}), (name, keys)


def test_the_documented_chances_are_those_of_the_test() -> None:
    pages = [ROOT / "docs" / "gate-rules.md", *(ROOT / "pipelines" / f"{name}.yaml" for name in ("digits", "cifar10"))]
    page, digits, cifar10 = (path.read_text() for path in pages)
    assert "passes in 33 of 100 cases; with 1,354 examples it passes in 80" in page
    assert power.needed(0.0, 0.02, 0.01, 0.95, 0.8) == 1354
    for text, n, discordance, few in ((digits, 360, 0.02, 33), (cifar10, 2000, 0.15, 31)):
        chances = [round(100 * power.pass_rate(0.0, discordance, n, margin, 0.95)) for margin in (0.03, 0.01)]
        assert chances == [96, few]
        assert f"passes in 96 of 100 cases (0.01: in {few})" in text and "margin: 0.03" in text


def test_defaults() -> None:
    against, slices = gate({"rule": "against_champion", "metric": "accuracy"}, {"rule": "slices"}).gate
    assert (against.margin, against.confidence, against.test) == (0.0, 0.95, "non_inferiority")
    assert (slices.metric, slices.by, slices.margin) == ("accuracy", ("class",), 0.05)
    assert (slices.confidence, slices.minimum, slices.buckets) == (0.95, 30, 4)


AGAINST = {"rule": "against_champion", "metric": "accuracy"}


@pytest.mark.parametrize(
    ("rule", "key", "told"),
    [
        ({**AGAINST, "margin": -0.01}, "gate.0.margin", "greater than or equal to 0"),
        ({**AGAINST, "margin": float("nan")}, "gate.0.margin", "finite"),
        ({**AGAINST, "margin": float("inf")}, "gate.0.margin", "finite"),
        ({**AGAINST, "confidence": 0.5}, "gate.0.confidence", "greater than 0.5"),
        ({**AGAINST, "confidence": 1}, "gate.0.confidence", "less than 1"),
        ({**AGAINST, "confidence": 95}, "gate.0.confidence", "less than 1"),
        ({**AGAINST, "confidence": float("nan")}, "gate.0.confidence", "less than 1"),
        ({**AGAINST, "test": "better"}, "gate.0.test", "'non_inferiority' or 'superiority'"),
        ({**AGAINST, "metric": "accuracies"}, "gate.0.metric", "one of accuracy, precision, recall, f1, log_loss, or"),
        ({"rule": "at_least", "metric": "accuracy", "value": float("nan")}, "gate.0.value", "finite"),
        ({"rule": "at_least", "metric": "accuracy", "value": 1, "confidence": 0.3}, "gate.0.confidence", "0.5"),
        ({"rule": "slices", "by": []}, "gate.0.by", "at least one of class, batch, newest"),
        ({"rule": "slices", "by": ["class", "class"]}, "gate.0.by", "each once"),
        ({"rule": "slices", "metric": "f1"}, "gate.0.metric", "accuracy"),
        ({"rule": "slices", "margin": -1}, "gate.0.margin", "greater than or equal to 0"),
        ({"rule": "slices", "minimun": 3}, "gate.0.minimun", "Did you mean minimum?"),
        ({"rule": "calibration", "value": 2}, "gate.0.value", "less than or equal to 1"),
        ({"rule": "latency", "value": 0}, "gate.0.value", "greater than 0"),
        ({"rule": "slice"}, "gate.0", "against_champion, slices, calibration, baseline, overfit, latency, size"),
    ],
)
def test_a_wrong_rule_is_one_clear_line(rule: dict[str, Any], key: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        gate(rule)
    line = raised.value.line()
    assert raised.value.exit_status == 2
    assert key in line and told in line and "\n" not in line


def test_a_class_that_the_yaml_does_not_have_is_refused_by_every_rule_with_a_metric() -> None:
    rules = (
        {"rule": "baseline", "metric": "recall[cow]"},
        {"rule": "overfit", "metric": "f1[cow]", "value": 1},
        {**AGAINST, "metric": "precision[cow]"},
    )
    for rule in rules:
        with pytest.raises(ConfigurationError, match=r"one of the classes cat, dog"):
            gate({"rule": "size", "value": 1}, rule, classes=["cat", "dog"])


def test_looks_are_in_no_id_and_a_rules_confidence_is() -> None:
    plain, warned = gate(AGAINST), gate(AGAINST, looks={"warn": 3})
    assert warned.looks.warn == 3 and plain.looks.warn == 50
    assert digest(plain) == digest(warned)
    assert digest(plain) != digest(gate({**AGAINST, "confidence": 0.9}))
    with pytest.raises(ConfigurationError, match=r"looks\.warn"):
        gate(AGAINST, looks={"warn": 0})
    with pytest.raises(ConfigurationError, match=r"Did you mean warn"):
        gate(AGAINST, looks={"warm": 3})
