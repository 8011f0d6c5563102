"""The best proven champion: the last that was shown to be better than the best proven one before it, or the first.

A candidate only has to be shown no worse than the champion by more than a margin. Compared with the last champion
alone, a year of candidates that are each a little worse would add up; hence each is compared with this one too. A
person's decision, `promote` or `rollback`, sets it anew. What does not belong here: the comparison (rules.against).
"""

from __future__ import annotations

from leptonflow.registry import champion_log
from leptonflow.registry.champion_log import Champion
from leptonflow.storage.commit_log import Entry, Log
from leptonflow.storage.store import Store
from schemas.config import AgainstChampion, Pipeline
from schemas.constants import BEST
from schemas.errors import Damaged, NotFound


def champions(store: Store, config: Pipeline, log: Log) -> dict[str, Champion]:
    """metric -> the best proven champion by it, for each `against_champion` of the gate, where it is not the last."""
    now = champion_log.champion(log)
    found = {}
    for metric in dict.fromkeys(rule.metric for rule in config.gate if isinstance(rule, AgainstChampion)):
        best = _best(store, config.name, log, metric)
        if best is not None and now is not None and best.version != now.version:
            found[metric] = best
    return found


def _best(store: Store, pipeline: str, log: Log, metric: str) -> Champion | None:
    for entry in reversed(log.entries):
        if entry.number == 1 or entry.kind != champion_log.PROMOTION or _superior(store, pipeline, log, entry, metric):
            return champion_log.champion(Log(log.prefix, log.entries[: entry.number]))
    return None


def _superior(store: Store, pipeline: str, log: Log, entry: Entry, metric: str) -> bool:
    """Whether the decision behind a promotion shows a gain: the interval of the difference lies above zero.

    Of the difference to the best proven champion, where the decision has it. A decision that is gone shows nothing.
    """
    run_id = champion_log.promotion(log, entry).run_id
    try:
        verdict = champion_log.decision(store, pipeline, str(run_id), entry.number - 1)
    except (Damaged, NotFound):
        return False
    rows = {row.rule: row for row in verdict.rules if row.metric == metric and row.slice is None}
    beside = rows.get(BEST)
    row = rows.get("against_champion") if beside is None or beside.passed is None else beside
    return row is not None and row.low is not None and row.low > 0
