"""What `init` sees in a source before anything is landed: its classes with counts, some of its images, a proposal.

The layout is the one that `ingest` will find (sources). Nothing is judged and nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from leptonflow.data.ingest import array_files, label_tables, layouts, table_paths
from leptonflow.data.ingest.folder_walk import Refusal, read_file
from leptonflow.data.ingest.sources import Source
from leptonflow.workloads import base, catalog
from leptonflow.workloads.base import Examined
from schemas.config import WORKLOADS

SAMPLE = 200  # images that are looked at, spread over the classes
TRIED = 3  # images of a class that are looked at before it is said to have none
SHAPE = (64, 64, 3)
SIDES = (32, 48, 64, 96, 128)
FEW = 4  # a class is small where the largest has this many times as many examples

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Summary:
    """A source as a person would describe it.

    classes   how many images each has; an image that was looked at and cannot be read does not make a class
    no_label  images without a label
    sizes     (width, height) of the images that were looked at; colours, formats: how many are so
    """

    source: Source
    classes: dict[str, int]
    no_label: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    colours: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    unreadable: tuple[str, ...] = ()

    @property
    def looked(self) -> int:
        """How many images were looked at."""
        return self.sizes.total()

    def small_classes(self) -> list[str]:
        """The classes that a model could leave out without losing much accuracy."""
        most = max(self.classes.values(), default=0)
        return [name for name, count in self.classes.items() if count * FEW <= most]

    def input(self) -> tuple[Shape, str]:
        """The input shape that is proposed, and why."""
        if not self.sizes:
            return SHAPE, "no image could be read"
        channels = 3 if self.colours["colour"] else 1
        colour = "in colour" if channels == 3 else "all grey"
        (width, height), count = self.sizes.most_common(1)[0]
        if count > self.looked / 2 and min(width, height) >= 8 and max(width, height) <= SIDES[-1]:
            why = f"{count} of {self.looked} inspected images are {width} wide and {height} high, {colour}"
            return (height, width, channels), why
        middle = median(min(size) for size in self.sizes.elements())
        side = max((side for side in SIDES if side <= middle), default=SIDES[0])
        shape = (min(side, SHAPE[0]),) * 2
        return (*shape, channels), (
            f"the shorter side is {middle:g} pixels in the middle, {colour}; a larger input shows more and takes longer"
        )

    def lines(self) -> list[str]:
        """What is told to a person."""
        shape = {"folders": "a folder per class", "npy": "arrays", "table": "a table"}[self.source.layout.kind]
        listed = ", ".join(f"{name} {count}" for name, count in list(self.classes.items())[:20])
        more = f" and {len(self.classes) - 20} more" if len(self.classes) > 20 else ""
        told = [f"layout   {shape}", f"classes  {len(self.classes)}: {listed}{more}"]
        if self.no_label:
            told.append(f"         {self.no_label} without a label, which go to quarantine")
        if self.sizes:
            (width, height), count = self.sizes.most_common(1)[0]
            others = f", {len(self.sizes) - 1} other sizes" if len(self.sizes) > 1 else ""
            kinds = ", ".join(f"{n} {kind}" for kind, n in (*self.colours.most_common(), *self.formats.most_common()))
            told.append(f"images   {self.looked} inspected: {count} of {width} x {height}{others}; {kinds}")
        if self.source.ignored:
            litter = ", ".join(map(layouts.shown, self.source.litter[:3]))
            told.append(f"ignored  {self.source.ignored} files" + (f", such as {litter}" if litter else ", all hidden"))
        (height, width, channels), why = self.input()
        return [*told, f"input    [{height}, {width}, {channels}]: {why}"]

    def document(self) -> dict[str, Any]:
        """The same for a program."""
        shape, why = self.input()
        return {
            "layout": self.source.layout.kind,
            "classes": self.classes,
            "splits": list(self.source.layout.roots) if self.source.layout.split else [],
            "sizes": [[width, height, count] for (width, height), count in self.sizes.most_common(20)],
            "ignored": self.source.ignored,
            "warnings": self.warnings(),
            "input": list(shape),
            "why": why,
        }

    def warnings(self) -> list[str]:
        """What a person should know before they go on."""
        told = [*self.source.warnings, *layouts.lookalikes(self._written())]
        if self.unreadable:
            told.append(f"no readable image, and so not a class: {', '.join(self.unreadable[:5])}")
        sizes = [{"width": width, "height": height} for width, height in self.sizes.elements()]
        told += _workload().remarks(sizes, self.input()[0])
        if len(self.classes) < 2:
            told.append(f"a dataset needs at least two classes; here is {', '.join(self.classes) or 'none'}")
        return told

    def _written(self) -> set[str]:
        """The labels, of folders as these are called."""
        if self.source.layout.kind != "folders":
            return set(self.classes)
        roots = frozenset(self.source.layout.roots)
        folders = (layouts.class_folder(layouts.shown(file.name), roots) for file in self.source.files)
        return set(filter(None, folders))


def summarise(source: Source) -> Summary:
    """Look at some images of each class. Raises nothing for a broken one: `ingest` says what is wrong with it."""
    if source.layout.kind == "npy":
        return _arrays(source)
    if source.layout.kind == "table":
        return _table(source)
    roots = frozenset(source.layout.roots)
    files: dict[str | None, list[bytes | str]] = {}
    for file in source.files:
        files.setdefault(layouts.label_of(layouts.shown(file.name), roots), []).append(file.real)
    return _looked(source, files)


def _examined(place: bytes | str) -> Examined:
    """A picture's bytes, or the file at that path, looked at."""
    data = read_file(place) if isinstance(place, str) else place
    return _workload().examine(data if isinstance(data, bytes) else b"", SHAPE)


def _workload() -> base.Workload:
    return catalog.load(WORKLOADS[0])


def _looked(source: Source, images: dict[str | None, list[bytes | str]]) -> Summary:
    """The images of each label, of which some are looked at."""
    nameless = len(images.pop(None, ()))
    share = max(TRIED, SAMPLE // max(1, len(images)))
    facts: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for label, mine in images.items():
        found = [examined.facts for image in _spread(mine, share) if (examined := _examined(image)).facts is not None]
        facts += found
        if not found:
            unreadable.append(str(label))
    classes = {str(label): len(mine) for label, mine in sorted(images.items(), key=str) if label not in unreadable}
    return _described(source, classes, nameless, facts, unreadable)


def _described(
    source: Source, classes: dict[str, int], nameless: int, facts: list[dict[str, Any]], unreadable: Sequence[str] = ()
) -> Summary:
    return Summary(
        source,
        classes,
        nameless,
        Counter((fact["width"], fact["height"]) for fact in facts),
        Counter("colour" if fact["channels"] == 3 else "grey" for fact in facts),
        Counter(str(fact["format"]) for fact in facts),
        tuple(unreadable),
    )


def _arrays(source: Source) -> Summary:
    files = {file.name: file.real for file in source.files}
    classes: Counter[str] = Counter()
    nameless = 0
    facts: list[dict[str, Any]] = []
    for data, labels in source.layout.pairs:
        for _, pair in array_files.read_each(data, files[data], None if data == labels else files[labels], None):
            good = [number for number, rule in enumerate(pair.rules) if rule is None]
            classes.update(str(pair.labels[number]) for number in good)
            nameless += len(pair) - len(good)
            examine = _workload().examine_array
            assert examine is not None
            looked = (examine(pair.row(number), SHAPE, pair.scale) for number in _spread(good, SAMPLE))
            facts += [examined.facts for examined in looked if examined.facts is not None]
    return _described(source, {name: classes[name] for name in sorted(classes, key=int)}, nameless, facts)


def _table(source: Source) -> Summary:
    name = source.layout.table or ""
    real = table_paths.real(source)
    data = read_file(real) if isinstance(real, str) else b""
    table = label_tables.read(name, data if isinstance(data, bytes) else b"", source.columns)
    if table.broken or table.missing:
        return Summary(source, {})
    images: dict[str | None, list[bytes | str]] = {}
    if table.cells is not None:
        places: Iterable[bytes | str | Refusal | None] = table.cells
    else:
        meant = table_paths.Paths(source, table.paths)
        places = [meant.places.get(row or "") for row, _ in meant.rows]
    for label, place in zip(table.labels, places, strict=True):
        if isinstance(place, bytes | str):
            images.setdefault(label, []).append(place)
    return _looked(source, images)


def _spread(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most `most` of them, from all over: the first files of a folder are often alike."""
    return items[:: max(1, len(items) // most)][:most]
