"""Why a finished run was promoted or refused: its recorded verdict, explained."""

from __future__ import annotations

from typing import Any

from leptonflow.core import store_keys
from leptonflow.gate import explanation
from leptonflow.runs import approvals, recording, refusal_advice, rejections
from leptonflow.storage.objects import BACK
from leptonflow.storage.store import Store
from schemas.config import NAME, Pipeline
from schemas.errors import Damaged, NotFound


def explain(store: Store, config: Pipeline, run_id: str | None = None) -> dict[str, Any]:
    """{run_id, version, verdict, champion, against, paragraph, would_change} of a finished run, by default the newest.

    champion is the version after the run, against the one that the candidate was compared with; both may
    be null. Where the pipeline has groups, `groups` is as in the run's document; where there is some, `advice` says
    what to try. Raises NotFound where there is no such finished run, Damaged where its verdict is gone.
    """
    run = None if run_id is None or not NAME.fullmatch(run_id) else recording.finished(store, config.name, run_id)
    if run is None:  # the newest, or none that is finished
        finished = recording.runs(store, config.name)
        if run_id is None and not finished and (rejected := rejections.standing(store, config.name, 0)) is not None:
            raise _trained_nothing(rejected)
        if run_id is not None or not finished:
            raise _no_run(config.name, run_id, [each["run_id"] for each in reversed(finished)])
        run = finished[-1]
    verdict = recording.standing(store, config.name, run["run_id"])
    if verdict is None:
        raise Damaged(
            f"{store_keys.run_key(config.name, run['run_id'], 'verdict.json')} is missing, though the run is finished",
            expected="the verdict of a finished run",
            received="no such object",
            hint=BACK,
        )
    measured = run.get("holdout") or {}
    now = approvals.told(store, config.name, run)
    approval = now.get("approval")
    advice = refusal_advice.advice(store, config.name, verdict)
    paragraph = explanation.paragraph(config.name, verdict, measured)
    return {
        "run_id": verdict.run_id,
        "version": verdict.version,
        "verdict": now["verdict"],
        "champion": run["champion"],
        "against": verdict.champion,
        "paragraph": paragraph if approval is None else f"{paragraph} Approval: {approval['sentence']}.",
        "would_change": [change.model_dump() for change in explanation.would_change(verdict, measured)],
        **({"advice": advice} if advice is not None else {}),
        **({"approval": approval} if approval is not None else {}),
        **({"groups": run["groups"]} if "groups" in run else {}),
    }


def _trained_nothing(rejected: rejections.Rejection) -> NotFound:
    return NotFound(
        f"the pipeline {rejected.pipeline} has no finished run: `retrain` at {rejected.at} trained nothing",
        expected="data to train on",
        received=rejected.sentence,
        hint=f"When that is put right, run `leptonflow retrain {rejected.pipeline}`",
    )


def _no_run(pipeline: str, run_id: str | None, there: list[str]) -> NotFound:
    asked = None if run_id is None else run_id or repr(run_id)
    return NotFound(
        f"the pipeline {pipeline} has no finished run{f' {asked}' if asked else ''}",
        expected=f"one of {', '.join(there[:10])}" if there else "a finished run, and there is none yet",
        received=asked or "none",
        hint=f"`leptonflow runs {pipeline}` lists them" if there else f"Run `leptonflow retrain {pipeline}`",
    )
