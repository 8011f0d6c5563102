"""Views over the tables, for frequent queries: their SQL, and the tables that they read.

A view is only a shorter way to write a query: it adds no row, and what it may read is what its tables may.
What does not belong here: making views (`queries`) and the tables' columns (`schemas.tables`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """`sql` over `tables`; `columns` are those of its answer, in order."""

    tables: tuple[str, ...]
    columns: tuple[str, ...]
    sql: str


VIEWS: dict[str, View] = {
    "champions": View(
        ("promotions",),
        ("pipeline", "number", "version", "previous", "run_id", "kind", "who", "reason", "since", "until"),
        """SELECT pipeline, number, version, previous, run_id, kind, who, reason, promotions.at AS since,
                  lead(promotions.at) OVER (PARTITION BY pipeline ORDER BY number) AS until
           FROM promotions""",
    ),
    "cross_validation": View(
        ("folds",),
        ("pipeline", "run_id", "version", "metric", "folds", "mean", "std", "low", "high"),
        """SELECT pipeline, run_id, version, metric, count(value) AS folds, avg(value) AS mean,
                  stddev_samp(value) AS std, min(value) AS low, max(value) AS high
           FROM folds GROUP BY pipeline, run_id, version, metric""",
    ),
    "version_batches": View(
        ("models", "snapshots"),
        ("pipeline", "version", "snapshot", "number", "batch", "accepted", "committed_at"),
        """SELECT m.pipeline, m.version, m.snapshot, s.number, s.batch, s.accepted, s.at AS committed_at
           FROM models m JOIN snapshots s ON s.pipeline = m.pipeline AND s.number <= m.snapshot_number
           WHERE s.batch IS NOT NULL""",
    ),
    "confusion": View(
        ("predictions",),
        ("pipeline", "run_id", "version", "split", "label", "predicted", "examples", "sureness"),
        """SELECT pipeline, run_id, version, split, label, predicted, count(*) AS examples,
                  avg(probability) AS sureness
           FROM predictions GROUP BY pipeline, run_id, version, split, label, predicted""",
    ),
}
