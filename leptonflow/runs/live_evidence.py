"""What the gate's rules argue from, with labelled requests in the place of the holdout.

Candidate and champion predicted each request: the candidate answered it, and the champion's prediction is in the table
`shadow`. What does not belong here: which rules there are and what follows (gate, canary).
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from leptonflow.core import store_keys
from leptonflow.evaluation import holdout_evaluation
from leptonflow.gate import evidence as gathering
from leptonflow.gate.evidence import Evidence
from leptonflow.monitoring import labels, served_log
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from schemas.config import Pipeline
from schemas.records import Evaluation, ModelManifest, Verdict
from schemas.rules import Baseline, Slices
from schemas.text import nfc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNKNOWN = {"batch", "newest"}  # slices that no request belongs to
WORDS = (  # how the gate's sentences name the holdout, and what stands in its place
    (r"\b(the|every) holdout example\b", r"\1 labelled request"),
    (r"\ba holdout of any size\b", "any number of live labels"),
    (r"\ba holdout of ([\d,]+)", r"\1 live labels"),
    (r"\bno holdout size\b", "no number of live labels"),
    (r"\bthe holdout is empty\b", "there are no live labels"),
    (r"\bthis holdout\b", "these live labels"),
    (r"\bthe holdout\b", "the live labels"),
)


class Labelled(NamedTuple):
    """N requests with a label, that the candidate answered and the champion predicted too.

    labels    as people gave them
    candidate, champion  (N, K) outputs, in the order of the candidate's classes
    metadata  of each example
    """

    labels: tuple[str, ...]
    candidate: NDArray[np.float64]
    champion: NDArray[np.float64]
    metadata: tuple[dict[str, Any], ...]


def labelled(store: Store, pipeline: str, candidate: ModelManifest, champion: ModelManifest) -> Labelled | None:
    """The newest label of each request; None where the two have other classes."""
    import numpy as np

    mine, theirs = ([nfc(name) for name in each.classes] for each in (candidate, champion))
    if candidate.workload != champion.workload or set(mine) != set(theirs):
        return None
    rows = [row for row in labels.current(store, pipeline).to_pylist() if row["version"] == candidate.version]
    ids = [row["request_id"] for row in rows]
    columns = ("request_id", "version", "outputs")
    beside = served_log.find(store, pipeline, ids, columns, store_keys.SHADOW)
    both = [row for row in rows if beside.get(row["request_id"], {}).get("version") == champion.version]
    order = [theirs.index(name) for name in mine]

    def outputs(found: list[list[float]]) -> NDArray[np.float64]:
        return np.asarray(found, np.float64).reshape(len(found), -1 if found else len(order))

    other = outputs([beside[row["request_id"]]["outputs"] for row in both])
    return Labelled(
        labels=tuple(row["label"] for row in both),
        candidate=outputs([row["outputs"] for row in both]),
        champion=other[:, order] if order and len(both) else other,
        metadata=tuple(json.loads(row["metadata"] or "{}") for row in both),
    )


def asked(config: Pipeline) -> Pipeline:
    """The pipeline with the rules that can be evaluated on requests.

    Without slices by the batch that an example came in, and without simple models, which predicted the holdout alone.
    """
    rules = []
    for rule in config.gate:
        if isinstance(rule, Baseline):
            continue
        if isinstance(rule, Slices):
            by = [name for name in rule.by if name not in UNKNOWN]
            if not by:
                continue
            rule = rule.model_copy(update={"by": type(rule.by)(by)})
        rules.append(rule)
    return config.model_copy(update={"gate": type(config.gate)(rules)})


def in_place_of_holdout(
    evidence: Evidence, evaluation: Evaluation, found: Labelled, config: Pipeline, classes: tuple[str, ...]
) -> tuple[Evidence, Evaluation]:
    """The same evidence and evaluation, those requests in the place of the holdout. The folds are what they were.

    classes: of the candidate, the columns of both outputs.
    """
    workload = catalog.load(config.workload)
    truth = workload.target.read(found.labels, classes)
    facts = {}
    for name in evidence.facts:
        derived = workload.derived.get(name)
        facts[name] = gathering.column([derived.of(each) if derived else each.get(name) for each in found.metadata])
    live = replace(
        evidence, classes=classes, labels=truth, candidate=found.candidate, champion=found.champion, batches=(),
        newest=None, facts=facts, groups=None, disjoint=None, proven={}, looks=0,
    )  # fmt: skip
    assert live.theirs is not None
    scores = {
        "candidate_scores": holdout_evaluation.summary(evaluation.version, live.mine),
        "champion_scores": holdout_evaluation.summary(evaluation.champion or "", live.theirs),
        "not_comparable": None,
        "proven": (),
    }
    return live, evaluation.model_copy(update=scores)


def worded(verdict: Verdict) -> Verdict:
    """The verdict with sentences that name the live labels where the gate's name the holdout."""

    def told(sentence: str) -> str:
        for pattern, words in WORDS:
            sentence = re.sub(pattern, words, sentence)
        return sentence

    rules = tuple(rule.model_copy(update={"sentence": told(rule.sentence)}) for rule in verdict.rules)
    warnings = tuple(map(told, verdict.warnings))
    return verdict.model_copy(update={"sentence": told(verdict.sentence), "rules": rules, "warnings": warnings})
