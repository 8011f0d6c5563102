"""Why a model predicts what it does of a few examples: the parts that mattered, as JSON.

How an example is taken apart is its workload's. What does not belong here: which examples (requested_examples).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leptonflow.workloads.base import Candidate, Shown, Workload
from schemas.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 64  # examples at once: each costs up to 65 predictions


def explained(workload: Workload, examples: NDArray[Any], given: Any, candidate: Candidate) -> list[dict[str, Any]]:
    """A document for each of N examples; given: the section `input`, candidate: a Package or a ServedModel.

    {text, marks[{start, end, text, effect}]} of an example with a text, else {patches, overlay}: the parts as
    `workloads.base.Patch` has them, and a PNG data URI. An effect is what the predicted probability loses without
    that part.

    Raises UsageError for more than 64, and for a workload that explains nothing.
    """
    check(workload, len(examples))
    assert workload.explain is not None
    return [_document(each) for each in workload.explain(examples, given, candidate)]


def check(workload: Workload, count: int) -> None:
    """Raises UsageError where so many examples are not explained, or none of the workload's are."""
    if workload.explain is None:
        raise UsageError(
            "predictions of this workload cannot be explained",
            expected="a workload that takes its examples apart",
            received=workload.name,
        )
    if count > MOST:
        raise UsageError("too many predictions to explain at once", expected=f"at most {MOST}", received=str(count))


def _document(shown: Shown) -> dict[str, Any]:
    if shown.text is not None:
        marks = [{**each._asdict(), "text": shown.text[each.start : each.end]} for each in shown.marks]
        return {"text": shown.text, "marks": marks}
    return {"patches": [each._asdict() for each in shown.patches], "overlay": shown.overlay}
