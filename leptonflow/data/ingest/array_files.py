"""A pair of arrays, `.npy` files or members of an `.npz`, as rows with labels: the rules before pixels are looked at.

Nothing is ever unpickled: an array of objects is refused from its header. What does not belong here:
what a row's pixels mean (the workload), and where the files come from (landing, examination).
"""

from __future__ import annotations

import hashlib
import io
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from leptonflow.data.ingest.source_layout import pair_up
from leptonflow.workloads.media.image import scale
from leptonflow.workloads.media.image.scale import BYTES, Scale
from schemas.errors import words_of
from schemas.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rule = tuple[str, str]  # rule, reason
File = bytes | str  # the file's bytes, or its path: then it is mapped into memory
SMALL = 256 << 20  # bytes that an array in an .npz may always have
HEADER = 64 << 10  # bytes of an `.npy` that are read for its shape
NUMBERED = "np.unique(y, return_inverse=True) gives the classes and y as their numbers"
RATIO = 200  # how many times its compressed size a larger one may have: more is a bomb


class Member(NamedTuple):
    """An array in an `.npz`."""

    archive: File
    name: str


Source = File | Member


@dataclass(frozen=True)
class Pair:
    """N rows. `values` is None where no row can be examined; then every row has a rule.

    values  N x H x W or N x H x W x C, C in 1, 3, 4
    labels  the class's name, or what stands there where that is no class
    rules   (rule, reason) of a row that is refused already
    scale   where black and white lie, for all rows
    whole   the one rule of a file that has no countable rows: then there is a single row, the file
    """

    values: NDArray[Any] | None
    labels: list[str | None]
    rules: list[Rule | None]
    scale: Scale = BYTES
    whole: bool = False

    def __len__(self) -> int:
        return len(self.rules)

    def row(self, number: int) -> NDArray[Any]:
        """One row, in C order."""
        import numpy as np

        assert self.values is not None
        return np.ascontiguousarray(self.values[number])


_BROKEN = (
    OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    RuntimeError,  # an encrypted member
    SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError,  # a header is Python's syntax
)  # fmt: skip


class _Refused(Exception):
    """A file that cannot be used as an array. `rows`: how many are refused, None if they cannot be counted."""

    def __init__(self, rule: str, reason: str, rows: int | None = None) -> None:
        super().__init__(reason)
        self.rule: Rule = (rule, reason)
        self.rows = rows


def read(data: Source, labels: Source, classes: Sequence[str] | None) -> Pair:
    """The pair as rows. Rules: object-array, unreadable-array, wrong-rank, length-mismatch, label-out-of-range.

    A class number i means classes[i], or the class that is called i where all of `classes` are numbers;
    without `classes`, the class i.
    """
    try:
        values = _open(data, "the data")
    except _Refused as refused:
        rows = 1 if refused.rows is None else refused.rows
        return Pair(None, [None] * rows, [refused.rule] * rows, whole=refused.rows is None)
    if values.ndim == 0:
        return Pair(None, [None], [("wrong-rank", _shapes(values))], whole=True)
    count = len(values)
    try:
        if not _is_images(values):
            raise _Refused("wrong-rank", _shapes(values))
        numbers = _open(labels, "the labels")
        if numbers.ndim not in (1, 2):
            raise _Refused("wrong-rank", f"labels are N numbers or N x K one-hot, not {_shape(numbers)}")
        if len(numbers) != count:
            raise _Refused("length-mismatch", f"{counted(count, 'row')} of data, {len(numbers)} of labels")
    except _Refused as refused:
        return Pair(None, [None] * count, [refused.rule] * count)
    names, rules = _name(numbers, classes)
    return Pair(values, names, rules, scale=scale.of(values))


def read_each(name: str, data: File, labels: File | None, classes: Sequence[str] | None) -> Iterator[tuple[str, Pair]]:
    """(what its rows are called, the rows) of a pair of files, or of each pair in an `.npz`, which has no `labels`."""
    if labels is not None:
        yield name, read(data, labels, classes)
        return
    for one, other in _members(data):
        inner = f"{name}/{one.name.removesuffix('.npy')}" if isinstance(one, Member) else name
        yield inner, read(one, other, classes)


def refused(data: Source, rule: str, reason: str) -> Pair:
    """Every row of the data refused by one rule, such as labels that are missing."""
    try:
        values = _open(data, "the data")
    except _Refused as error:
        rows = 1 if error.rows is None else error.rows
        return Pair(None, [None] * rows, [error.rule] * rows, whole=error.rows is None)
    count = len(values) if values.ndim else 1
    return Pair(None, [None] * count, [(rule, reason)] * count, whole=values.ndim == 0)


def unlabelled(values: NDArray[Any]) -> Pair:
    """An array in memory as rows without labels, by the rules of a file's: unreadable-array, wrong-rank."""
    refused = None
    if values.dtype.kind not in "buif":
        refused = ("unreadable-array", f"{values.dtype} is no kind of number that a pixel has")
    elif not _is_images(values):
        refused = ("wrong-rank", _shapes(values))
    if refused is not None:
        return Pair(None, [None], [refused], whole=True)
    return Pair(values, [None] * len(values), [None] * len(values), scale=scale.of(values))


def is_plain(pair: Pair) -> bool:
    """Whether the bytes of its rows say what they show: uint8 in 0..255, and not 0 and 1 alone, as of bool."""
    return pair.values is not None and pair.values.dtype.str[1:] == "u1" and pair.scale.note is None


def row_sha256(row: NDArray[Any]) -> str:
    """The sha256 of a row's raw bytes in C order."""
    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(row).data).hexdigest()


def _members(archive: File) -> list[tuple[Source, Source]]:
    """The (data, labels) of an `.npz`: paired by names, else its only two arrays, of which the images have more axes.

    Where there are none, the archive itself stands for both: reading it says why.
    """
    try:
        with _archive(archive) as file:
            names = [name for name in file.namelist() if name.endswith(".npy")]
            pairs = pair_up(names)
            if not pairs and len(names) == 2:
                ranks = []
                for name in names:
                    with file.open(name) as member:  # a header that is said to be larger is none
                        ranks.append(len(_header(io.BytesIO(member.read(HEADER)))[0]))
                if ranks[0] != ranks[1]:
                    data, labels = names if ranks[0] > ranks[1] else names[::-1]
                    pairs = [(data, labels)]
    except _BROKEN:
        pairs = []
    return [(Member(archive, data), Member(archive, labels)) for data, labels in pairs] or [(archive, archive)]


def _seekable(file: File) -> BinaryIO:
    return open(file, "rb") if isinstance(file, str) else io.BytesIO(file)


def _archive(file: File) -> zipfile.ZipFile:
    return zipfile.ZipFile(file if isinstance(file, str) else io.BytesIO(file))


def _extracted(member: Member, what: str) -> bytes:
    """The bytes of an `.npy` in an `.npz`, never more of them than the archive declares and its size makes likely."""
    with _archive(member.archive) as file:
        told = file.getinfo(member.name)
        if told.file_size > max(SMALL, RATIO * told.compress_size):
            raise _Refused(
                "unreadable-array",
                f"{what}: {member.name} would grow from {told.compress_size} to {told.file_size} bytes",
            )
        with file.open(told) as opened:
            return opened.read(told.file_size)


def _open(source: Source, what: str) -> NDArray[Any]:
    """A numeric array, its size held against its header before anything is allocated."""
    import numpy as np

    try:
        file_or_bytes = _extracted(source, what) if isinstance(source, Member) else source
        with _seekable(file_or_bytes) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            shape, dtype = _header(file)
            start = file.tell()
    except _BROKEN as error:
        raise _Refused("unreadable-array", f"{what}: {words_of(error)}") from None
    source = file_or_bytes
    count = 1
    for side in shape:
        count *= side
    if dtype.hasobject:
        # A pickled object takes a byte at least: a larger count is a header's lie.
        rows = shape[0] if shape and shape[0] <= size else None
        raise _Refused("object-array", f"{what} are objects, which are never unpickled: save them as numbers", rows)
    if dtype.kind in "US" and what == "the labels":
        raise _Refused("unreadable-array", f"{what} are text ({dtype}) and not numbers; {NUMBERED}")
    if dtype.kind not in "buif":
        raise _Refused("unreadable-array", f"{what}: {dtype} is not a type of pixel or label")
    if shape and shape[0] > size:
        raise _Refused("unreadable-array", f"{what}: {_times(shape)} are {shape[0]} rows in a file of {size} bytes")
    if count * dtype.itemsize != size - start:
        needed = f"{_times(shape)} of {dtype} take {count * dtype.itemsize} bytes"
        raise _Refused("unreadable-array", f"{what}: {needed}, and there are {size - start}")
    try:
        if isinstance(source, str) and count:
            mapped: NDArray[Any] = np.load(source, mmap_mode="r", allow_pickle=False)
            return mapped
        found: NDArray[Any] = np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False)
        return found
    except (OSError, ValueError) as error:
        raise _Refused("unreadable-array", f"{what}: {words_of(error)}") from None


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype). Raises ValueError where it is no `.npy` header."""
    from numpy.lib import format as npy

    if file.read(4) == b"PK\3\4":
        raise ValueError("the .npz has no pair of arrays, by names such as x_train and y_train, or two of them in all")
    file.seek(0)
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version[0]}.{version[1]} of the format holds no plain numbers")
    return shape, dtype


def _name(numbers: NDArray[Any], classes: Sequence[str] | None) -> tuple[list[str | None], list[Rule | None]]:
    """The label and the rule of each row of N numbers, N x 1 numbers or N x K one-hot rows."""
    import numpy as np

    labels: list[str | None] = []
    rules: list[Rule | None] = []
    if numbers.ndim == 2 and numbers.shape[1] != 1:
        hot = ((numbers == 0) | (numbers == 1)).all(axis=1) & (numbers.sum(axis=1) == 1)
        places = np.argmax(numbers, axis=1).tolist() if numbers.size else []
        for good, number in zip(hot.tolist(), places, strict=False):
            label, rule = _class(number, classes) if good else (None, "a one-hot row has exactly one 1")
            labels.append(label)
            rules.append(("label-out-of-range", rule) if rule else None)
        missing = len(numbers) - len(rules)  # N x 0
        return labels + [None] * missing, rules + [("label-out-of-range", "an empty one-hot row")] * missing
    for number in numbers.reshape(-1).tolist():
        label, rule = _class(number, classes)
        labels.append(label)
        rules.append(("label-out-of-range", rule) if rule else None)
    return labels, rules


def _class(number: float, classes: Sequence[str] | None) -> tuple[str, str | None]:
    """(label, why it is none)."""
    if number != number or number in (float("inf"), float("-inf")) or number != int(number):
        return str(number), f"{number} is not a class number"
    name = str(int(number))
    if number < 0:
        return name, f"{name} is negative"
    if classes is None:
        return name, None
    if all(c.isascii() and c.isdigit() for c in classes):
        return name, None if name in classes else f"{name} is not one of the classes {', '.join(classes[:20])}"
    if number >= len(classes):
        return name, f"{name} is not below {len(classes)}, the number of classes"
    return classes[int(number)], None


def _is_images(values: NDArray[Any]) -> bool:
    return values.ndim == 3 or (values.ndim == 4 and values.shape[3] in (1, 3, 4))


def _shape(values: NDArray[Any]) -> str:
    return _times(values.shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _shapes(values: NDArray[Any]) -> str:
    return f"data are N x H x W or N x H x W x C with C 1, 3 or 4, not {_shape(values)}"
