"""Which rows of a batch are accepted: a pure function over examined rows and what is known.

Reading, writing and Great Expectations do not belong here (admission).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from leptonflow.data.ingest import example_groups, layouts
from leptonflow.data.ingest.example_groups import Grouped, Moved
from leptonflow.data.validation.examined_rows import Row
from schemas.text import counted

DUPLICATE = "duplicate"
CONFLICT = "conflicting-label"
UNKNOWN_LABEL = "unknown-label"
MISSING_GROUP = "missing-group"
BAD_LABEL = "bad-label"  # where there are no classes: it is no target
RETRACTED = "retracted"
REFUSED = "batch-refused"
BY_MACHINE = ("too-large",)  # what another machine or setting may accept is not remembered
ADD = "add it to `classes`, then ingest the source again"
CORRECTABLE = (CONFLICT, RETRACTED, DUPLICATE)  # examined again by `ingest --correct`: a copy has a label too
NEWER = "`ingest --correct` uses the newer label"  # ends the reason where the dataset has another label
BY_SOURCE = ("out-of-range",)  # of an array's row: what its whole source decides, which may be another one now


@dataclass(frozen=True)
class Knowledge:
    """What the dataset holds and what was quarantined before under this contract.

    files     file sha256 -> (label, batch)
    examples  canonical digest of an example -> (label, batch)
    recalled  (file sha256, label) -> (rule, reason), where that still stands
    retracted   canonical digest of an example that left the dataset -> the sentence that says so
    quarantined (file sha256, label) of all that was quarantined before, whether it stands or not
    groups      canonical digest of an example -> its group, where the pipeline has groups
    """

    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    recalled: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    retracted: Mapping[str, str] = field(default_factory=dict)
    quarantined: frozenset[tuple[str, str]] = frozenset()
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """One row that goes to quarantine. `new`: not quarantined before under this contract."""

    row: Row
    rule: str
    reason: str
    new: bool


@dataclass(frozen=True)
class Judgement:
    """accepted + refused + known = the rows. `over` is the sentence of a batch over its limit.

    warnings: what a person should know of their groups.
    """

    accepted: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    known: int
    over: str | None
    warnings: tuple[str, ...] = ()

    def reasons(self) -> dict[str, int]:
        """How many rows each rule refused, most first."""
        return dict(Counter(r.rule for r in self.refused).most_common())


def judge(
    rows: Sequence[Row],
    knowledge: Knowledge,
    classes: Sequence[str],
    *,
    limit: float,
    known_at_landing: int,
    fault: Callable[[str], str | None] | None = None,
) -> Judgement:
    """Judge each row. fault: a label -> why it is none, where there are no classes.

    The order of the rules is part of the contract: refused by the source or the decoder, unknown or bad label, known
    by file, quarantined before, known by example, other label in the dataset, retracted, no group, two labels, double.
    """
    valid, known = set(classes), known_at_landing
    accepted: list[Row] = []
    refused: list[Refusal] = []
    labels_of: dict[str, dict[str, str]] = defaultdict(dict)  # id -> label -> the first row that has it
    for row in rows:
        if row.id is not None and _unfit(row, valid, fault) is None and not _is_known(row, knowledge):
            labels_of[row.id].setdefault(str(row.label), row.source)
    seen: dict[str, Row] = {}
    moved: list[Moved] = []
    for row in rows:
        at = row.sha256 or "", row.label or ""
        before = knowledge.recalled.get(at)
        new = before is None and at not in knowledge.quarantined
        if before is not None and before[0] in BY_SOURCE:
            before = None
        if unfit := _unfit(row, valid, fault):
            refused.append(Refusal(row, *unfit, new))
        elif _known_by_bytes(row, knowledge):
            known += 1
            moved += _moved(row, knowledge)
        elif before is not None:
            refused.append(Refusal(row, *before, new=False))
        elif _has(knowledge.examples, row.id, at[1]):
            known += 1
            moved += _moved(row, knowledge)
        elif (held := knowledge.examples.get(row.id or "")) is not None:
            other, batch = held
            told = f"batch {batch} has this example with the label {other!r}; {NEWER}"
            refused.append(Refusal(row, CONFLICT, told, new))
        elif (gone := knowledge.retracted.get(row.id or "")) is not None:
            refused.append(Refusal(row, RETRACTED, gone, new))
        elif row.no_group is not None:
            refused.append(Refusal(row, MISSING_GROUP, row.no_group, new))
        elif len(labels_of[row.id or ""]) > 1:
            names = ", ".join(f"{label!r} ({first})" for label, first in sorted(labels_of[row.id or ""].items()))
            refused.append(Refusal(row, CONFLICT, f"this example is in the batch with the labels {names}", new))
        elif row.id in seen:
            first = seen[row.id or ""]
            kept = "" if first.group == row.group else f", which is of the group {first.group!r}"
            refused.append(Refusal(row, DUPLICATE, f"the same example as {first.source}{kept}", new))
        else:
            seen[row.id or ""] = row
            accepted.append(row)
    over = _over(refused, len(rows) + known_at_landing, limit)
    alike = layouts.lookalikes(filter(None, (row.group for row in accepted)), knowledge.groups.values(), "group")
    return Judgement(tuple(accepted), tuple(refused), known, over, (*example_groups.warnings(moved), *alike))


def _over(refused: Sequence[Refusal], arrived: int, limit: float) -> str | None:
    """The sentence of a batch with too many quarantined rows: how many, and one of the most frequent rule."""
    new = [r for r in refused if r.new and r.rule not in (DUPLICATE, RETRACTED)]
    if arrived == 0:
        return "the batch is empty: no file arrived"
    if len(new) / arrived <= limit:
        return None
    found = f"{len(new)} of {counted(arrived, 'row')} newly quarantined, duplicates apart"
    rule, rows = Counter(r.rule for r in new).most_common(1)[0]
    first = next(r for r in new if r.rule == rule)
    found += f"; quarantine.limit allows {limit:g}"
    return f"{found}; {rows} {rule}, such as {first.row.source}: {first.reason}"


def _unfit(row: Row, valid: Collection[str], fault: Callable[[str], str | None] | None) -> tuple[str, str] | None:
    """(rule, reason) of a row that is bad by itself, whatever the dataset holds."""
    if row.rule is not None:
        return row.rule, row.reason or row.rule
    if row.label is None:
        nothing = "the file lies outside a class folder" if row.row is None else "the row has no label"
        return UNKNOWN_LABEL, nothing
    if fault is not None:
        why = fault(row.label)
        return (BAD_LABEL, why) if why else None
    if row.label not in valid:
        return UNKNOWN_LABEL, f"{row.label!r} is not one of the classes: {ADD}"
    return None


def stands(rule: str, label: str, classes: Sequence[str], labels_changed: bool) -> bool:
    """Whether a row that this rule quarantined would be quarantined by it again.

    labels_changed: a later record changed labels or took examples out of the dataset.
    """
    if rule == UNKNOWN_LABEL:
        return label not in classes
    if rule == MISSING_GROUP:  # another source of the same example may tell it
        return False
    return rule not in BY_MACHINE and (rule not in CORRECTABLE or not labels_changed)


def refuse_whole(judgement: Judgement, sentence: str) -> Judgement:
    """The whole batch is refused: its good rows are counted as quarantined too."""
    good = tuple(Refusal(row, REFUSED, sentence, True) for row in judgement.accepted)
    return Judgement((), judgement.refused + good, judgement.known, sentence, judgement.warnings)


def _has(index: Mapping[str, tuple[str, str]], key: str | None, label: str) -> bool:
    found = index.get(key) if key else None
    return found is not None and found[0] == label


def _moved(row: Row, knowledge: Knowledge) -> list[Moved]:
    return example_groups.moved(row.source, knowledge.groups.get(row.id or ""), Grouped(row.group))


def _is_known(row: Row, knowledge: Knowledge) -> bool:
    label = str(row.label)
    return _known_by_bytes(row, knowledge) or _has(knowledge.examples, row.id, label)


def _known_by_bytes(row: Row, knowledge: Knowledge) -> bool:
    """By the file's. An array's mean what its type and the scale of its source say: of its rows the content tells."""
    if (row.key or "").lower().endswith((".npy", ".npz")):
        return _has(knowledge.examples, row.id, str(row.label))
    return _has(knowledge.files, row.sha256, str(row.label))
