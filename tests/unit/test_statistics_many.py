"""The corrected t-test over folds, Holm's correction and calibration: by hand, and by simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from leptonflow.statistics import calibration, folds, multiple
from schemas.errors import LeptonflowError

# --- folds ---------------------------------------------------------------------------------------


def test_the_corrected_t_by_hand() -> None:
    """Mean 0.02, s^2 = 0.00025 over 5 folds of 80 and 20: t = 0.03 / sqrt((1/5 + 1/4) * 0.00025)."""
    gaps = [0.0, 0.01, 0.02, 0.03, 0.04]
    t, p = folds.corrected_t(gaps, 80, 20, 0.01)
    assert t == pytest.approx(0.03 / math.sqrt(0.45 * 0.00025))
    assert p == pytest.approx(stats.t.sf(t, 4))


def test_without_test_examples_to_speak_of_it_is_the_plain_t_test() -> None:
    gaps = np.random.default_rng(0).normal(0.01, 0.02, 6)
    t, p = folds.corrected_t(gaps.tolist(), 10**12, 1, 0.0)
    plain = stats.ttest_1samp(gaps, 0.0, alternative="greater")
    assert (t, p) == pytest.approx((plain.statistic, plain.pvalue), rel=1e-6)


def test_the_correction_holds_its_level_where_the_plain_test_does_not() -> None:
    """Folds that share a common error, as overlapping training sets give them: correlation test/(train+test)."""
    rng = np.random.default_rng(9)
    k, rounds, rho = 5, 4000, 0.2
    gaps = rng.normal(0, math.sqrt(rho), (rounds, 1)) + rng.normal(0, math.sqrt(1 - rho), (rounds, k))
    corrected = np.mean([folds.corrected_t(row, 80, 20, 0.0)[1] < 0.05 for row in gaps.tolist()])
    plain = np.mean(stats.ttest_1samp(gaps, 0.0, axis=1, alternative="greater").pvalue < 0.05)
    assert plain > 0.08
    assert corrected == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / rounds))


def test_folds_that_do_not_differ() -> None:
    assert folds.corrected_t([0.0] * 5, 80, 20, 0.01) == (math.inf, 0.0)
    assert folds.corrected_t([0.0] * 5, 80, 20, 0.0) == (0.0, 0.5)
    assert folds.corrected_t([-0.1] * 5, 80, 20, 0.01) == (-math.inf, 1.0)


@pytest.mark.parametrize(
    ("gaps", "train", "margin"), [([0.1], 8, 0.0), ([0.1, math.nan], 8, 0.0), ([0.1, 0.2], 0, 0.0), ([0.1, 0.2], 8, -1)]
)
def test_folds_that_cannot_be_compared(gaps: list[float], train: int, margin: float) -> None:
    with pytest.raises(LeptonflowError) as refused:
        folds.corrected_t(gaps, train, 2, margin)
    assert refused.value.expected


# --- Holm ----------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    """p 0.01, 0.04, 0.03, 0.005: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.04 carried up to 0.06."""
    assert multiple.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert multiple.holm([]) == []
    assert multiple.holm([0.2]) == [0.2]
    assert multiple.holm([0.9, 0.8, 1.0]) == [1.0, 1.0, 1.0]
    with pytest.raises(LeptonflowError):
        multiple.holm([0.1, math.nan])


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    """4,000 rounds of ten true hypotheses: one of them falls in at most 5%, where uncorrected 40% would."""
    values = np.random.default_rng(2).random((4000, 10))
    alarms = np.mean([min(multiple.holm(row)) < 0.05 for row in values.tolist()])
    assert 0.03 < alarms < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)
    assert np.mean(values.min(axis=1) < 0.05) > 0.35


# --- calibration ---------------------------------------------------------------------------------


def test_bins_by_hand() -> None:
    found = calibration.bins([0.0, 0.1, 0.55, 0.6, 1.0], [0, 1, 1, 0, 1], count=2)
    assert [(b.low, b.high, b.n) for b in found] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert (found[0].confidence, found[0].accuracy) == pytest.approx((0.05, 0.5))
    assert (found[1].confidence, found[1].accuracy) == pytest.approx((2.15 / 3, 2 / 3))
    error = calibration.expected_error([0.0, 0.1, 0.55, 0.6, 1.0], [0, 1, 1, 0, 1], count=2)
    assert error == pytest.approx(2 / 5 * 0.45 + 3 / 5 * (2.15 / 3 - 2 / 3))


def test_every_bin_is_there_and_its_upper_edge_belongs_to_it() -> None:
    found = calibration.bins([0.3, 0.30001], [1, 1])
    assert [b.n for b in found] == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]
    assert (found[0].confidence, found[0].accuracy) == (None, None)
    assert [b.n for b in calibration.bins([], [])] == [0] * 10


def test_honest_probabilities_have_little_error_and_boasts_have_much() -> None:
    rng = np.random.default_rng(4)
    said = rng.uniform(0.5, 1.0, 20_000)
    right = rng.random(20_000) < said
    assert calibration.expected_error(said, right) < 0.01
    assert calibration.expected_error(np.ones(20_000), right) == pytest.approx(1 - right.mean())


@pytest.mark.parametrize(("said", "right"), [([0.5], [1, 0]), ([1.1], [1]), ([math.nan], [1]), ([], [])])
def test_answers_that_are_none(said: list[float], right: list[int]) -> None:
    with pytest.raises(LeptonflowError):
        calibration.expected_error(said, right)
