"""What `init` sees in a source before anything is landed: its classes with counts, some of its examples, a proposal.

The layout is the one that `ingest` will find (sources); which workload takes the source is chosen elsewhere
(source_workload). Nothing is judged and nothing is written here.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from leptonflow.data.ingest import array_files, label_columns, label_tables, layouts, rare_labels, table_paths
from leptonflow.data.ingest.folder_walk import Refusal, read_file
from leptonflow.data.ingest.label_columns import LabelTable
from leptonflow.data.ingest.sources import Source
from leptonflow.workloads.base import Examined, Proposal, Workload
from schemas.text import counted
from schemas.workloads import SECTIONS

SAMPLE = 200  # examples that are looked at, spread over the classes
TRIED = 3  # examples of a class that are looked at before it is said to have none
LEAST = 10  # examples of a class, of which holdout and folds each have some
FREE = 10  # labels of a table from which on they may be free text
NAMED = 5  # classes that a warning names
LONGEST = 40  # characters of a class that are shown
FEW = 4  # a class is small where the largest has this many times as many examples
LAYOUTS = {"folders": "a folder per class", "npy": "arrays", "table": "a table"}


@dataclass(frozen=True)
class Summary:
    """A source as a person would describe it.

    classes   how many examples each has; one that was looked at and cannot be read does not make a class
    facts     the metadata of the examples that were looked at
    columns   of a table that hold the examples themselves
    no_label  examples without a label; unreadable: labels without an example that can be read
    refused   examples of the classes that were looked at and go to quarantine, each as its rule and reason
    looked    how many examples of the classes were looked at
    note      why a table, or some of its rows, cannot be looked at; which of its columns may be meant as well
    """

    workload: Workload
    source: Source
    classes: dict[str, int]
    facts: Sequence[dict[str, Any]] = ()
    columns: tuple[str, ...] = ()
    no_label: int = 0
    unreadable: tuple[str, ...] = ()
    refused: Sequence[tuple[str, str]] = ()
    looked: int = 0
    note: str | None = None

    @cached_property
    def proposal(self) -> Proposal:
        """What the workload says of the examples, and where a pipeline of them starts."""
        return self.workload.propose(self.facts, sum(self.classes.values()), self.columns, self.source.columns.label)

    @property
    def free_text(self) -> bool:
        """Whether the labels of a table look like texts of their own: there are many, and most occur once or twice."""
        many = self.source.layout.kind == "table" and len(self.classes) >= FREE
        return many and 2 * len(self.classes) > sum(self.classes.values())

    @property
    def group_ways(self) -> frozenset[str]:
        """The keys of the YAML's `group` by which such a source can tell its groups."""
        if self.source.layout.kind == "npy":
            return frozenset()
        if self.source.layout.kind == "folders":
            return frozenset(("pattern", "folder"))
        return frozenset(("column",)) if self.columns else frozenset(("column", "pattern", "folder"))

    def small_classes(self) -> list[str]:
        """The classes that a model could leave out without losing much accuracy."""
        most = max(self.classes.values(), default=0)
        return [name for name, count in self.classes.items() if count * FEW <= most]

    def lines(self) -> list[str]:
        """What is told to a person."""
        listed = ", ".join(f"{_short(name)} {count}" for name, count in list(self.classes.items())[:20])
        more = f" and {len(self.classes) - 20} more" if len(self.classes) > 20 else ""
        where = f", {self.workload.noun} in {' and '.join(map(repr, self.columns))}" if self.columns else ""
        told = [
            ("layout", LAYOUTS[self.source.layout.kind] + where),
            ("classes", f"{len(self.classes)}: {listed}{more}"),
        ]
        if self.no_label:
            go = "goes" if self.no_label == 1 else "go"
            told.append(("", f"{self.no_label} without a label, which {go} to quarantine"))
        told += self.proposal.told
        if self.source.ignored:
            litter = ", ".join(map(layouts.shown, self.source.litter[:3]))
            such = f", such as {litter}" if litter else ", all hidden"
            told.insert(-1, ("ignored", f"{counted(self.source.ignored, 'file')}{such}"))
        return [f"{word:<8} {sentence}" for word, sentence in told]

    def document(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "workload": self.workload.name,
            "layout": self.source.layout.kind,
            "classes": self.classes,
            "splits": list(self.source.layout.roots) if self.source.layout.split else [],
            **self.proposal.seen,
            "ignored": self.source.ignored,
            "warnings": self.warnings(),
            "input": self.proposal.input,
            "why": self.proposal.why,
        }

    def warnings(self) -> list[str]:
        """What a person should know before they go on."""
        told = [*self.source.warnings, *layouts.lookalikes(self._written())]
        if self.note:
            told.append(self.note)
        if self.unreadable:
            told.append(f"no readable example, and so not a class: {', '.join(self.unreadable[:5])}")
        if self.refused:
            some = f"{len(self.refused)} of {self.looked} inspected {self.workload.noun}"
            go = "goes" if len(self.refused) == 1 else "go"
            told.append(f"{some} {go} to quarantine ({': '.join(self.refused[0])})")
        proposed = SECTIONS[self.workload.name].input.validate_python(self.proposal.input)
        told += self.workload.remarks(self.facts, proposed)
        if self.free_text:
            total = counted(sum(self.classes.values()), "example")
            told.append(
                f"the labels look like free text: {len(self.classes)} different ones in {total}; --label-column names "
                "the column of labels"
            )
        else:
            told += self._doubtful()
        if len(self.classes) < 2:
            way = "; each class has a folder of its own, or a table names the files and their labels"
            told.append(
                f"a dataset needs at least two classes; here is {', '.join(self.classes) or 'none'}"
                + (way if self.source.layout.kind == "folders" else "")
            )
        return told

    def _doubtful(self) -> list[str]:
        """Classes that may be none: spelt nearly like another one, or of very few examples."""
        near = rare_labels.nearly(self.classes)
        rare = [f"{self._shown(name)} like {self._shown(other)}" for name, other in near.items()]
        few = sorted((name for name, count in self.classes.items() if count < LEAST), key=self.classes.__getitem__)
        told = [f"rare labels that are spelt nearly like another: {_some(rare)}; typing errors?"] if rare else []
        if few:
            told.append(
                f"classes with fewer than {LEAST} examples: {_some([self._shown(name) for name in few])}; folds need "
                "some of each class: bring more, correct the labels, or take the class out of `classes` in the YAML "
                "before the first `ingest`"
            )
        return told

    def _shown(self, name: str) -> str:
        return f"{_short(name)!r} ({self.classes[name]})"

    def _written(self) -> set[str]:
        """The labels, of folders as these are called."""
        if self.source.layout.kind != "folders":
            return set(self.classes)
        roots = frozenset(self.source.layout.roots)
        folders = (layouts.class_folder(layouts.shown(file.name), roots) for file in self.source.files)
        return set(filter(None, folders))


def summarise(source: Source, workload: Workload) -> Summary:
    """Look at some examples of each class. Raises nothing for a broken one: `ingest` says what is wrong with it."""
    if source.layout.kind == "npy":
        return _arrays(source, workload)
    if source.layout.kind == "table":
        return _table(source, workload)
    roots = frozenset(source.layout.roots)
    files: dict[str | None, list[bytes | str]] = {}
    for file in source.files:
        files.setdefault(layouts.label_of(layouts.shown(file.name), roots), []).append(file.real)
    return _looked(source, workload, files)


def table(source: Source) -> LabelTable:
    """The rows of a source's table."""
    real = table_paths.real(source)
    data = read_file(real) if isinstance(real, str) else b""
    return label_tables.read(source.layout.table or "", data if isinstance(data, bytes) else b"", source.columns)


def _looked(source: Source, workload: Workload, examples: dict[str | None, list[bytes | str]]) -> Summary:
    """The examples of each label, their bytes or the paths of their files, of which some are looked at."""
    nameless = len(examples.pop(None, ()))
    share = max(TRIED, SAMPLE // max(1, len(examples)))
    looked: list[Examined] = []
    unreadable: list[str] = []
    for label, mine in examples.items():
        found = [workload.examine(_bytes(each), workload.look) for each in _spread(mine, share)]
        if any(each.facts is not None for each in found):
            looked += found
        else:
            unreadable.append(str(label))
    classes = {str(label): len(mine) for label, mine in sorted(examples.items(), key=str) if label not in unreadable}
    facts = [each.facts for each in looked if each.facts is not None]
    refused = [(each.rule, each.reason or "") for each in looked if each.rule is not None]
    return Summary(
        workload, source, classes, facts,
        no_label=nameless, unreadable=tuple(unreadable), refused=refused, looked=len(looked),
    )  # fmt: skip


def _bytes(place: bytes | str) -> bytes:
    data = read_file(place) if isinstance(place, str) else place
    return data if isinstance(data, bytes) else b""


def _arrays(source: Source, workload: Workload) -> Summary:
    files = {file.name: file.real for file in source.files}
    classes: Counter[str] = Counter()
    refused: dict[str, label_columns.Rule] = {}
    facts: list[dict[str, Any]] = []
    for data, labels in source.layout.pairs:
        for name, pair in array_files.read_each(data, files[data], None if data == labels else files[labels], None):
            good = [number for number, rule in enumerate(pair.rules) if rule is None]
            classes.update(str(pair.labels[number]) for number in good)
            refused |= {f"{layouts.shown(name)}[{n}]": rule for n, rule in enumerate(pair.rules) if rule is not None}
            examine = workload.examine_array
            assert examine is not None
            looked = (examine(pair.row(number), workload.look, pair.scale) for number in _spread(good, SAMPLE))
            facts += [examined.facts for examined in looked if examined.facts is not None]
    ordered = {name: classes[name] for name in sorted(classes, key=int)}
    return Summary(workload, source, ordered, facts, note="; ".join(_quarantined(refused)) or None)


def _table(source: Source, workload: Workload) -> Summary:
    found = table(source)
    label_columns.check_texts(found.header, source.columns)
    why = found.broken or found.missing
    if why:
        return Summary(workload, source, {}, note=f"{source.layout.table}: {why[1]}")
    examples: dict[str | None, list[bytes | str]] = {}
    refused = dict(found.ragged)
    places: Sequence[bytes | str | Refusal | None]
    if found.cells is not None:
        places = found.cells
    else:
        meant = table_paths.Paths(source, found.paths)
        places = [meant.places.get(row or "") for row, _ in meant.rows]
        refused = {number: rule for number, (_, rule) in enumerate(meant.rows) if rule} | refused
        refused |= {n: (each.rule, each.reason) for n, each in enumerate(places) if isinstance(each, Refusal)}
    for label, place in zip(found.labels, places, strict=True):
        if isinstance(place, bytes | str):
            examples.setdefault(label, []).append(place)
    named = {f"{source.layout.table}[{number}]": rule for number, rule in sorted(refused.items())}
    told = [*_quarantined(named), *label_columns.doubled(found.header, source.columns)]
    if source.columns.cells is None:
        return replace(_looked(source, workload, examples), note="; ".join(told) or None)
    at, label_at = label_columns.find_texts(found.header, source.columns)
    columns = tuple(found.header[each] for each in at or ())
    if not source.columns.cells:
        told += _other_texts(found.header, columns, label_at)
    return replace(_looked(source, workload, examples), columns=columns, note="; ".join(told) or None)


def _quarantined(refused: Mapping[str, label_columns.Rule]) -> list[str]:
    """The rows that are quarantined before an example is looked at, by their names, the first one first."""
    if not refused:
        return []
    name, (rule, reason) = next(iter(refused.items()))
    rows = counted(len(refused), "row goes", "rows go")
    return [f"{rows} to quarantine, such as {name} ({rule}: {reason})"]


def _other_texts(header: Sequence[str], columns: tuple[str, ...], label_at: int | None) -> list[str]:
    """Which columns that nobody named may hold texts as well."""
    named = [name for at, name in enumerate(header) if name.strip().lower() in label_columns.TEXTS and at != label_at]
    others = ", ".join(repr(name) for name in named if name not in columns)
    options = " ".join(f"--text-column {shlex.quote(name)}" for name in named)
    return [f"{others} may hold texts too: {options} joins them"] if others else []


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if names[NAMED:] else "")


def _spread(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most `most` of them, from all over: the first files of a folder are often alike."""
    return items[:: max(1, len(items) // most)][:most]
