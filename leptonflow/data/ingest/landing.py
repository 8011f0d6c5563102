"""Lands a source as a batch, and lists and opens the batches that lie in landing/.

The protocol: `_INGEST`, with the listing, first; the files; `_READY`, the same
bytes, last. So a landing that was cut short goes on from what it had decided, and ends in the same
`_READY`. Nothing is overwritten. Judging a batch's rows does not belong here (examination, admission).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from leptonflow.core import capacity
from leptonflow.core.hashing import canonical
from leptonflow.core.store_keys import INGEST, READY, batch_folder, landed_key, landing_folder
from leptonflow.data.ingest import label_tables, landing_state, layouts, source_layout
from leptonflow.data.ingest.folder_walk import Refusal, walk
from leptonflow.data.ingest.label_columns import DEFAULT, Columns, of_pipeline
from leptonflow.data.ingest.layouts import ANY, Batch, Index, Item, Layout, default_name
from leptonflow.data.ingest.source_files import Arrival, Progress
from leptonflow.data.ingest.source_rows import arrive
from leptonflow.data.ingest.sources import open_source
from leptonflow.storage.objects import steady
from leptonflow.storage.store import Store
from leptonflow.storage.store_identity import upgrade
from leptonflow.workloads import catalog
from leptonflow.workloads.base import Suffixes
from schemas.config import NAME, Pipeline
from schemas.errors import AlreadyExists, Damaged, NotFound, StoreError, UsageError
from schemas.records import Listing, SourceRow

__all__ = [
    "Batch", "Index", "Landed", "check_name", "closed_batches", "default_name", "empty", "land", "listed",
    "misnamed_batches", "open_batch",
]  # fmt: skip


LARGEST = 1 << 30  # bytes of a listing: of some four million files
_LEADS_OUT = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")  # an empty component, `.` or `..`


@dataclass(frozen=True)
class Landed:
    """A batch that is closed now. `already`: it was before; `resumed`: an earlier landing was cut short."""

    batch: str
    listing: Listing
    resumed: bool
    already: bool


def land(
    store: Store,
    config: Pipeline,
    source: Path,
    name: str | None,
    index: Index,
    progress: Progress | None = None,
    columns: Columns = DEFAULT,
    root: Path | None = None,
) -> Landed:
    """Land a source as a closed batch called `name`, or as `<source>-<digest of its listing>`.

    columns, root: of a table, where the user named them (sources). The same content under the same name again is
    `already`. Raises UsageError where the source cannot be ingested, the name is no name, or the name belongs to other
    content.
    """
    progress = progress or (lambda stage, done, total: None)
    check_name(name)
    workload = catalog.load(config.workload)
    if columns.cells and workload.cells is None:
        raise UsageError(
            f"a pipeline of the workload {config.workload} takes no --text-column",
            expected="--path-column, of a table that names files", received=", ".join(columns.cells),
        )  # fmt: skip
    named = columns.label or columns.cells
    columns = of_pipeline(workload, config.input, columns)
    columns = columns.grouped(config.group)
    opened = open_source(source, config.classes or index.classes, columns, root, workload.suffixes)
    if named and opened.layout.kind != "table":
        raise UsageError(
            "there is no table to apply --text-column or --label-column to", expected="a table",
            received=f"{source}, which is read as a folder per class",
        )  # fmt: skip
    if opened.layout.kind not in workload.layouts:
        raise UsageError(
            f"a pipeline of the workload {config.workload} takes no arrays",
            expected="a folder per class, or a table",
            received=str(source),
        )
    arrival = arrive(opened, index, config.classes, progress)
    batch = name or default_name(_stem(source), arrival.listing.digest)
    ready = landed_key(config.name, batch, READY)
    each, told = workload.codec.bytes(config.input), workload.told(config.input).how
    capacity.check_batch(each, told, _examples(arrival.listing))
    upgrade(store)
    if store.size(ready) is not None:
        found = _listing(store, ready)
        if found is None or found.digest != arrival.listing.digest:
            raise _other_content(batch, "closed")
        return Landed(batch, found, resumed=False, already=True)
    listing, resumed = _begin(store, config.name, batch, arrival.listing)
    _put(store, batch_folder(config.name, batch), arrival, listing, progress)
    try:
        store.create(ready, canonical(listing))
    except AlreadyExists:  # another landing of the same source was as fast
        found = _listing(store, ready)
        if found != listing:
            raise _other_content(batch, "closed") from None
    return Landed(batch, listing, resumed=resumed, already=False)


def _examples(listing: Listing) -> int:
    """How many examples a listing's files hold, as far as that is known before arrays are opened."""
    if listing.rows is not None:
        return len(listing.rows)
    return 0 if listing.layout == "npy" else len(listing.files)


def check_name(name: str | None) -> None:
    """Raises UsageError where a batch cannot have that name. None: it will be named after its source."""
    if name is not None and not NAME.fullmatch(name):
        expected = f"a name that matches {NAME.pattern}"
        raise UsageError("this is not a valid batch name", expected=expected, received=repr(name))


def _begin(store: Store, pipeline: str, batch: str, listing: Listing) -> tuple[Listing, bool]:
    """The listing that this landing follows: ours, or that of the landing it resumes."""
    key = landed_key(pipeline, batch, INGEST)
    if store.size(key) is None:
        stranger = next(iter(store.list(batch_folder(pipeline, batch))), None)
        if stranger is not None and store.size(key) is None:  # another landing may have begun meanwhile
            raise UsageError(
                f"the batch {batch} is open and was not started by `ingest`",
                expected="a new batch, or one whose landing was interrupted",
                received=f"objects such as {stranger[0]}",
                hint="Pass another --batch, or close this one with an empty _READY",
            )
        try:
            store.create(key, canonical(listing))
        except AlreadyExists:
            pass
        else:
            return listing, False
    begun = _listing(store, key)
    if begun is None or begun.digest != listing.digest:
        raise _other_content(batch, "begun")
    return begun, True


def _put(store: Store, prefix: str, arrival: Arrival, listing: Listing, progress: Progress) -> None:
    """Create each file, those that lie there already left alone."""
    total = len(listing.files)
    progress("landing", 0, total)

    def counted() -> Iterable[tuple[str, bytes]]:
        for number, item in enumerate(arrival.items(listing, prefix), 1):
            yield item
            if number % 64 == 0 or number == total:
                progress("landing", number, total)

    store.create_many(counted())


def _other_content(batch: str, state: str) -> UsageError:
    return UsageError(
        f"the batch {batch} was {state} with other content",
        expected="the same files as before under the same name",
        received="a source with another listing",
        hint="Pass another --batch, or none",
    )


def _stem(source: Path) -> str:
    """What the source is called: a table without its suffix, a folder as it is."""
    absolute = Path(os.path.abspath(source))
    a_file = absolute.suffix.lower() in (*layouts.TABLES, ".npy", ".npz") and absolute.is_file()
    return absolute.stem if a_file else absolute.name


def closed_batches(store: Store, pipeline: str, besides: Collection[str] = ()) -> list[str]:
    """The names of closed batches, sorted. `besides`: names that need not be asked for."""
    names = [name for name in store.folders(landing_folder(pipeline)) if NAME.fullmatch(name) and name not in besides]
    return [
        name
        for name in names
        if landing_state.readable(store, pipeline, name) and store.size(landed_key(pipeline, name, READY)) is not None
    ]


def misnamed_batches(store: Store, pipeline: str) -> list[str]:
    """Closed batches under names that are none. They are never read; `status` and `doctor` name them."""
    found = []
    for name in store.folders(landing_folder(pipeline)):
        if NAME.fullmatch(name):
            continue
        try:
            closed = store.size(landed_key(pipeline, name, READY)) is not None
        except UsageError:  # a name that no key can have
            continue
        if closed:
            found.append(layouts.shown(name))
    return found


def open_batch(
    store: Store,
    pipeline: str,
    batch: str,
    classes: Collection[str] | None = None,
    suffixes: Suffixes = ANY,
    columns: Columns = DEFAULT,
) -> Batch:
    """A closed batch: by its listing, or, where `_READY` is empty, by the names that lie there.

    classes: the dataset's, where it has some; a folder of such a name is a class.
    Raises NotFound where it is not closed, Damaged where its `_READY` is neither empty nor a listing.
    """
    listing = _listing(store, landed_key(pipeline, batch, READY))
    if listing is None:
        return _plain(store, pipeline, batch, classes, suffixes, columns)
    shape = Layout("folders", roots=listing.roots, split=listing.split, suffixes=suffixes)
    if listing.layout == "table" and listing.files:
        shape = Layout("table", table=listing.files[0].name, suffixes=suffixes)
    elif listing.layout == "npy":
        shape = source_layout.layout([file.name for file in listing.files]) if listing.files else Layout("npy")
    return Batch(
        pipeline=pipeline,
        name=batch,
        layout=listing.layout,
        shape=shape,
        items=tuple(Item(file.key, file.name, file.sha256) for file in listing.files),
        listing=listing,
        refused=listing.refused,
        known=listing.known,
        ignored=listing.ignored,
        warnings=listing.warnings,
        seen=landing_state.named(file.key for file in listing.files),
    )


def empty(pipeline: str, batch: str) -> Batch:
    """A batch of which nothing can be read."""
    return Batch(pipeline, batch, "folders", Layout("folders"), items=(), listing=None)


def _plain(
    store: Store,
    pipeline: str,
    batch: str,
    classes: Collection[str] | None,
    suffixes: Suffixes,
    columns: Columns,
) -> Batch:
    """A batch that some S3 client, or a person with `cp`, put there: its keys are its names."""
    prefix = batch_folder(pipeline, batch)
    seen = landing_state.seen(store, pipeline, batch)  # first: what comes from here on may be missed, and told of
    names, refused, ignored, empty = _there(store, prefix)

    def has_columns(name: str) -> bool:
        return label_tables.has_columns(name, store.get(f"{prefix}/{name}"), columns)

    def broken(name: str) -> str | None:
        return label_tables.broken(name, store.get(f"{prefix}/{name}"))

    shape = source_layout.layout(names, classes, has_columns, broken, suffixes, columns.nested)
    warnings: list[str] = []
    if shape.kind == "npy":
        beside = layouts.beside(shape, names)
        ignored += len(beside)
        warnings = [layouts.beside_warning(beside)] if beside else []
    elif shape.kind == "folders":
        litter = [name for name in names if shape.ignores(name)]
        names = [name for name in names if not shape.ignores(name)]
        ignored += len(litter)
        warnings = empty + ([layouts.litter_warning(litter)] if litter else [])
        folders = {layouts.class_folder(layouts.shown(name), shape.roots) for name in names}
        warnings += layouts.lookalikes(filter(None, folders), classes or ())
    items = tuple(sorted((Item(name, layouts.shown(name)) for name in names), key=lambda item: (item.name, item.key)))
    roots = frozenset(shape.roots)
    return Batch(
        pipeline=pipeline,
        name=batch,
        layout=shape.kind,
        shape=shape,
        items=items,
        listing=None,
        refused=tuple(
            SourceRow(source=name, label=layouts.label_of(name, roots), sha256=None, rule=why.rule, reason=why.reason)
            for name, why in refused
        ),
        ignored=ignored,
        warnings=(*shape.warnings, *warnings),
        seen=seen,
    )


def _there(store: Store, prefix: str) -> tuple[list[str], list[tuple[str, Refusal]], int, list[str]]:
    """(names, names that are refused, how many are ignored, a sentence for each empty folder) of a plain batch."""
    folder = store.path(prefix)
    if folder is None:
        every = [key.removeprefix(f"{prefix}/") for key in store.keys(prefix)]
        # A client's "folder" is an object whose name ends with a slash, and holds nothing.
        every = [name for name in every if name not in (READY, INGEST) and not name.endswith("/")]
        names = [name for name in every if not layouts.is_hidden(name)]
        return names, [], len(every) - len(names), []
    # Our own walk, which sees links, pipes and folders without permission for what they are.
    try:
        found = walk(str(folder))
    except OSError as error:
        raise StoreError(f"{prefix} cannot be listed", received=error.strerror or str(error)) from None
    # The markers are hidden to a walk, but no file that somebody sent.
    markers = sum(name in (READY, INGEST) for name in os.listdir(found.root))
    refused = [(layouts.shown(name), why) for name, why in sorted(found.refused.items())]
    return [file.name for file in found.files], refused, found.ignored - markers, found.warnings()


def listed(store: Store, pipeline: str, batch: str) -> Listing | None:
    """The listing of a closed batch; None where its `_READY` is empty. Raises NotFound, Damaged."""
    return _listing(store, landed_key(pipeline, batch, READY))


def _listing(store: Store, key: str) -> Listing | None:
    """The listing under a key, None where it is empty. Raises NotFound, Damaged."""
    size = store.size(key)
    if size is not None and size > LARGEST:
        raise _damaged(key, f"{size} bytes")
    try:
        data = steady(store, key)  # nothing else has its digest, and what is accepted follows it
    except NotFound:
        raise NotFound(f"{key} is not there", expected="a closed batch", hint="Close it with _READY first") from None
    if not data.strip():
        return None
    try:
        listing = Listing.model_validate_json(data)
        if listing.layout not in ("folders", "npy", "table"):
            raise ValueError(f"layout {listing.layout}")
        for file in listing.files:
            if _LEADS_OUT.search(file.key):
                raise ValueError("a key outside the batch")
    except (ValidationError, ValueError) as error:
        raise _damaged(key, _wrong(data, error)) from None
    return listing


def _damaged(key: str, received: str) -> Damaged:
    return Damaged(
        f"{key} is damaged",
        expected="an empty object, or the listing that `ingest` wrote",
        received=received,
        hint="Land the files again under another batch name, with an empty _READY last",
    )


def _wrong(data: bytes, error: ValueError) -> str:
    """What is wrong with it: the first key of a listing that is not as it must be; of anything else how it begins."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else repr(data[:60])
