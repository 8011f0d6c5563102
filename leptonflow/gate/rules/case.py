"""What every rule is given, and what it returns. Plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from leptonflow.core.hashing import digest
from schemas.records import Evaluation, InfraResult, RuleResult

if TYPE_CHECKING:
    from leptonflow.gate.evidence import Evidence
    from leptonflow.registry.champion_log import Champion


@dataclass(frozen=True)
class Case:
    """One candidate before the gate.

    cv          metric: {"mean", "std" (ddof 1), "folds"} over the candidate's folds; a value may be null
    evaluation  candidate and champion on the same holdout
    evidence    the same, example by example
    proven      metric: the best proven champion by it, where that is not the last one
    """

    pipeline: str
    version: str
    cv: Mapping[str, Mapping[str, Any]]
    evaluation: Evaluation
    infra: InfraResult
    champion: Champion | None
    evidence: Evidence
    proven: Mapping[str, Champion] = field(default_factory=dict)

    def beside(self, champion: Champion) -> Case:
        """The same candidate beside another champion than the last one."""
        found = next((r for r in self.evaluation.proven if r.version == champion.version), None)
        rows, disjoint = self.evidence.proven.get(champion.version, (None, None))
        return replace(
            self,
            champion=champion,
            evaluation=self.evaluation.model_copy(
                update={
                    "champion": champion.version,
                    "champion_scores": found and found.scores,
                    "not_comparable": found and found.not_comparable,
                }
            ),
            evidence=replace(self.evidence, champion=rows, disjoint=disjoint, champion_cv=None, other_folds=None),
        )

    def seed(self, *about: str) -> int:
        """The seed of one rule's resamples: the same candidate and champion draw the same ones each time."""
        return int(digest(self.version, self.champion.version if self.champion else None, *about)[:8], 16)


@dataclass(frozen=True)
class Evaluated:
    """A rule's rows in the verdict, and what the verdict's sentence must add about them."""

    rows: tuple[RuleResult, ...]
    note: str | None = None
