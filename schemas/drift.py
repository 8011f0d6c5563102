"""What a look for drift found: the record under monitoring/<pipeline>/records/, and its tests."""

from __future__ import annotations

from typing import Any, Literal

from schemas.records import Record


class DriftTest(Record):
    """What is served held against the reference, in one respect.

    what    metadata, inputs (what the workload computes of an example as the model takes it), features, predictions,
            probabilities or confidence; name: the column of metadata or inputs
    effect  0 where there is no difference; least: a smaller one does not matter
    p_value corrected for the number of the record's tests
    n, m    examples of the reference, and of what was served
    values  means of the reference and of what was served; where it is about names or classes, the share of the one, or
            its mean probability, that differs most, which `of` names. None of vectors, and in records from before
    spreads standard deviations of the reference and of what was served, of numbers alone
    """

    what: Literal["metadata", "inputs", "features", "predictions", "probabilities", "confidence"]
    name: str | None
    method: str
    effect: float
    least: float
    p_value: float
    n: int
    m: int
    drifted: bool
    sentence: str
    of: str | None = None
    values: tuple[float, float] | None = None
    spreads: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """Such as metadata.brightness."""
        return self.what if self.name is None else f"{self.what}.{self.name}"


class DriftRecord(Record):
    """One look. verdict: `drift`, `none`, or `too-few` where there is too little to tell.

    version  the champion, of whose predictions alone it is about
    served   how many of them, from the first to the last
    triggers whether a retraining is asked for: a drift of which no test drifted in an earlier record that asked, of
             the same champion
    asked    the tests for which those earlier records asked
    """

    pipeline: str
    number: int
    at: str
    version: str
    verdict: Literal["drift", "none", "too-few"]
    served: int
    first: str | None
    last: str | None
    reference: int
    tests: tuple[DriftTest, ...]
    triggers: bool
    asked: tuple[str, ...] = ()
    quality: tuple[dict[str, Any], ...]
    sentence: str

    @property
    def drifted(self) -> frozenset[str]:
        """The tests that drifted, by their keys."""
        return frozenset(test.key for test in self.tests if test.drifted)
