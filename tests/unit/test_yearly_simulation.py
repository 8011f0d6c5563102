"""A year of candidates that are each a little worse: the best proven champion bounds the loss by the margin."""

from __future__ import annotations

import numpy as np
import pytest

from leptonflow.gate import yearly_simulation


@pytest.mark.parametrize(("n", "discordance", "margin"), [(2000, 0.05, 0.01), (400, 0.05, 0.03), (100_000, 0.1, 0.01)])
def test_small_losses_add_up_beside_the_last_champion_alone_and_not_beside_the_best(
    n: int, discordance: float, margin: float
) -> None:
    found = yearly_simulation.simulate(n, discordance, margin, 0.95, accuracy=0.92)
    assert found.lost < 1.3 * margin < 3 * margin < found.lost_last
    assert found.promoted < 3 < found.promoted_last
    assert (found.step, found.weeks, found.accuracy) == (margin / 2, 52, 0.92)
    assert found == yearly_simulation.simulate(n, discordance, margin, 0.95, accuracy=0.92)
    assert f"{found.lost:.4f}" in found.sentence and f"{found.lost_last:.4f}" in found.sentence


def test_whoever_has_to_be_better_is_not_promoted_for_being_worse() -> None:
    found = yearly_simulation.simulate(2000, 0.1, 0.0, 0.95)
    assert (found.step, found.accuracy) == (yearly_simulation.STEP, yearly_simulation.USUAL)
    assert found.promoted <= found.promoted_last < 3
    assert yearly_simulation.simulate(500, 0.9, 0.02, 0.95, accuracy=1.0).lost < 0.02, (
        "no two versions can differ on as many"
    )


def test_two_versions_of_one_accuracy_differ_on_the_discordance_that_was_asked_for() -> None:
    chances = yearly_simulation._chances(0.9, 0.08)
    true = np.full((200, 3), 0.9)
    counts = yearly_simulation._answers(np.random.default_rng(0), 10_000, 0.9, chances, true).sum(axis=0) / (
        200 * 10_000
    )
    for pair in (counts.sum(axis=2), counts.sum(axis=1), counts.sum(axis=0)):
        assert pair[0, 1] + pair[1, 0] == pytest.approx(0.08, abs=1e-3)
        assert pair[1].sum() == pytest.approx(0.9, abs=1e-3)
