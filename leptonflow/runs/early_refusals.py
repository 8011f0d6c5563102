"""A run that `stop_early_if` ended: refused by its first folds, with no package and no look at the holdout.

What does not belong here: deciding that (gate.early_refusal).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leptonflow.core import clock
from leptonflow.core.hashing import canonical
from leptonflow.core.store_keys import run_key
from leptonflow.gate import early_refusal, evidence
from leptonflow.registry import champion_log
from leptonflow.runs import recording
from leptonflow.runs.recording import RunRecord
from leptonflow.storage.objects import adopt, read_model, steady
from leptonflow.storage.store import Store
from leptonflow.training import checkpoints, fit_cost, model_fits
from schemas.config import Pipeline
from schemas.constants import EARLY
from schemas.records import FitResult, Plan, Record, RuleResult, Split


class Decided(Record):
    """runs/<pipeline>/<run_id>/early-refusal.json: the metrics of the folds that the rule saw, and its row."""

    folds: dict[str, dict[str, float | None]]
    rule: RuleResult


def decided(store: Store, config: Pipeline, plan: Plan) -> tuple[RuleResult, list[FitResult]] | None:
    """What an earlier, killed attempt of this run has decided: the row, and the folds that it saw; None: nothing.

    Folds that end side by side come in another order each time, and more of them may be there now, so that they are
    not judged again: they could be found to have a chance. Raises Damaged.
    """
    version, _ = model_fits.planned(plan)
    assert plan.run_id is not None
    key = run_key(config.name, plan.run_id, EARLY)
    if store.size(key) is None:
        return None
    found = read_model(Decided, key, steady(store, key), "the decision of stop_early_if")
    fits = [model_fits.fit_result(store, config.name, version, int(fold)) for fold in found.folds]
    return found.rule, [fit for fit in fits if fit is not None]


def record(
    store: Store, config: Pipeline, plan: Plan, row: RuleResult, fits: Sequence[FitResult], split: Split,
    batches: Sequence[str], started_at: str, seconds: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Write what such a run leaves behind; the document of `retrain --json`, whose version is null.

    row: the rule that refused; fits: the folds that it saw. Safe to repeat with what `decided` returns.
    """
    from leptonflow.reports import early_page
    from leptonflow.tables import compaction, table_files

    version, _ = model_fits.planned(plan)
    assert plan.run_id is not None
    done = recording.finished(store, config.name, plan.run_id)
    if done is not None:
        return done
    log = champion_log.promotions(store, config.name, complete=True)
    champion = champion_log.champion(log)
    now = champion.version if champion else None
    looks = evidence.looks(store, config.name, plan.run_id)
    mine = RunRecord(
        verdict=early_refusal.verdict(plan.run_id, version, row, now, log.number, looks), champion=now,
        batches=tuple(batches), started_at=started_at, finished_at=clock.now(), seconds=dict(seconds),
        number=len(recording.manifests(store, config.name)) + 1,
    )  # fmt: skip
    scores = {str(fit.fold): fit.metrics for fit in fits}
    written = {}
    for name, value in ((EARLY, Decided(folds=scores, rule=row)), ("verdict.json", mine)):
        key = run_key(config.name, plan.run_id, name)
        written[key] = adopt(store, key, canonical(value))
    told = RunRecord.model_validate_json(written[run_key(config.name, plan.run_id, "verdict.json")])
    cv, page = model_fits.cross_validation(fits), run_key(config.name, plan.run_id, "report.html")
    spent = fit_cost.together(fits)
    document = {
        **recording.common(plan, told, split),
        "version": None,
        "cv": cv,
        "holdout": None,
        "report": page,
        "cost": None if spent is None else spent.model_dump(),
    }
    written[page] = adopt(store, page, early_page.render(config, document, told.verdict, fits))
    tables = table_files.run_files(
        store, config.name, told.verdict, None, recording.run_row(plan, told, split), cv, told.seconds
    )
    files = [recording.reference_to(key, data) for key, data in written.items()]
    tables += table_files.fold_files(store, config.name, version, plan.run_id, fits)
    files += table_files.write(store, tables)
    key = run_key(config.name, plan.run_id, "manifest.json")
    adopt(store, key, recording.manifest_bytes(config, plan, told, document, files))
    checkpoints.sweep(store, config.name, version)
    compaction.after_run(store)
    finished = recording.finished(store, config.name, plan.run_id)
    assert finished is not None
    return finished
