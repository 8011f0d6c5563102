"""The gate on live labels: what its sentences call them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leptonflow.runs import live_evidence
from tests import verdicts
from tests.verdicts import champion, decide, measured, pairs, pipeline, rows

LABELS = np.arange(40) % 2
HIGH: dict[str, Any] = {"metric": "accuracy", "confidence": 0.95}
RULES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "bounds": ([{"rule": "at_least", "metric": "accuracy", "value": 0.5, "on": "holdout"}], {}),
    "calibration": ([{"rule": "calibration", "value": 0.5}], measured(LABELS, rows(LABELS, LABELS < 2))),
    "overfit": ([{"rule": "overfit", "metric": "accuracy", "value": 0.1}], {}),
    "a champion": ([{"rule": "against_champion", **HIGH, "margin": 0.0}], pairs(3, 2, 20, 3)),
    "the same predictions": (
        [{"rule": "at_least", "metric": "accuracy", "value": 0.5, "on": "holdout"}],
        measured(LABELS, rows(LABELS, LABELS < 2), rows(LABELS, LABELS < 2)),
    ),
    "no numbers": (
        [{"rule": "at_least", "metric": "accuracy", "value": 0.5, "on": "holdout"}],
        measured(LABELS, np.full((40, 2), np.nan)),
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_no_sentence_of_a_verdict_on_live_labels_names_the_holdout(case: str) -> None:
    rules, given = RULES[case]
    known = given.get("evaluation", verdicts.evaluation({"accuracy": 0.9}))
    against = {"champion": champion(), "against": 1} if known.champion else {}
    verdict = decide(pipeline(*rules), **given, **against)
    found = live_evidence.worded(verdict)
    told = [found.sentence, *found.warnings, *(rule.sentence for rule in found.rules)]
    assert "holdout" not in " ".join(told)
    if "holdout" in verdict.rules[0].sentence:
        assert "live label" in told[-len(found.rules)] or "labelled request" in told[-len(found.rules)]
