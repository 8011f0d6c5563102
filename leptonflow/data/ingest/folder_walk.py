"""Walks a folder from outside and opens its files. Nothing outside the folder is ever opened.

What a name, a link, a pipe or a file without permission means is decided here; labels, layouts and
stores are not known here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from leptonflow.data.ingest.layouts import is_hidden, shown
from schemas.errors import LeptonflowError

PIECE = 64 << 10  # bytes of the first read: most files, whole
WHOLE = 8 << 20  # files up to this size are read at once, larger ones are hashed in pieces


@dataclass(frozen=True)
class Refusal:
    """Why a file is not read: the quarantine rule and a sentence."""

    rule: str
    reason: str


NO_FILE = Refusal("not-a-file", "a pipe, a socket or a device")


@dataclass(frozen=True)
class Found:
    """A file that may be read. `name` is relative to the root, `real` what is opened (a link's target)."""

    name: str
    real: str


@dataclass
class Walk:
    """All files under a root. `folders` are its immediate sub-folders, hidden ones apart."""

    root: str
    files: list[Found] = field(default_factory=list)
    refused: dict[str, Refusal] = field(default_factory=dict)
    ignored: int = 0
    folders: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """A sentence for each class folder without a file."""
        full = {name.partition("/")[0] for name in [f.name for f in self.files] + list(self.refused)}
        return [f"the folder {shown(name)!r} is empty" for name in sorted(self.folders) if name not in full]


def walk(root: str) -> Walk:
    """Every file under `root`, which must be a folder. Names are relative; no link to a folder is followed.

    Raises OSError where the root itself cannot be listed.
    """
    found = Walk(os.path.realpath(root))
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(os.path.join(found.root, prefix)) as entries:
                for entry in entries:
                    _visit(found, entry, prefix + entry.name, waiting)
        except OSError as error:
            if not prefix:
                raise
            if not is_hidden(prefix):
                found.refused[prefix[:-1]] = Refusal("unreadable-file", f"the folder: {_words(error)}")
    found.files.sort(key=lambda file: (shown(file.name), file.name))
    return found


def ordered(root: str) -> Iterator[tuple[str, Found | Refusal]]:
    """(name, the file or why it is not read) of every file under `root`, by name; of one folder at a time in memory.

    Raises OSError where the root itself cannot be listed.
    """
    real = os.path.realpath(root)

    def visit(prefix: str) -> Iterator[tuple[str, Found | Refusal]]:
        links, others = set[str](), set[str]()
        names = []  # a folder's with a slash: what is in it comes where that does
        try:
            with os.scandir(os.path.join(real, prefix)) as entries:
                for entry in entries:
                    names.append(entry.name + "/" * entry.is_dir(follow_symlinks=False))
                    if entry.is_symlink():
                        links.add(entry.name)
                    elif not entry.is_file(follow_symlinks=False):
                        others.add(entry.name)
        except OSError as error:
            if not prefix:
                raise
            yield prefix[:-1], Refusal("unreadable-file", f"the folder: {_words(error)}")
            return
        names.sort()
        for name in names:
            if is_hidden((prefix + name).rstrip("/")):
                continue
            if name.endswith("/"):
                yield from visit(prefix + name)
            elif name in links:
                place = resolve(real, prefix + name)
                yield prefix + name, place if isinstance(place, Refusal) else Found(prefix + name, place)
            elif name in others:
                yield prefix + name, NO_FILE
            else:
                yield prefix + name, Found(prefix + name, os.path.join(real, prefix + name))

    return visit("")


def _visit(found: Walk, entry: os.DirEntry[str], name: str, waiting: list[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        waiting.append(name + "/")
        if "/" not in name and not is_hidden(name):
            found.folders.append(name)
    elif is_hidden(name):
        found.ignored += 1
    elif entry.is_symlink():
        real = resolve(found.root, name)
        if isinstance(real, Refusal):
            found.refused[name] = real
        else:
            found.files.append(Found(name, real))
    elif entry.is_file(follow_symlinks=False):
        found.files.append(Found(name, entry.path))
    else:
        found.refused[name] = NO_FILE


def resolve(root: str, name: str) -> str | Refusal:
    """What `name` under the real folder `root` leads to, if that is a file within it. Opens nothing."""
    path = os.path.join(root, name)
    try:
        real = os.path.realpath(path)
        if os.path.commonpath((root, real)) != root:
            return Refusal("path-escape", "a link points outside the batch")
        mode = os.lstat(real).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in a table's path
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return Refusal("unreadable-file", _words(error))
        return Refusal("missing-file", "there is no such file")
    if stat.S_ISDIR(mode):
        if os.path.islink(path):
            return Refusal("path-escape", "a link to a folder is not followed")
        return Refusal("not-a-file", "a folder")
    if stat.S_ISLNK(mode):
        return Refusal("path-escape", "a circular link")
    return real if stat.S_ISREG(mode) else NO_FILE


def open_file(real: str) -> int | Refusal:
    """A descriptor of a regular file. No link is followed and a pipe does not block."""
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Refusal("missing-file", "there is no such file")
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Refusal("path-escape", "a link that is not followed")
        if error.errno == errno.ENXIO:
            return NO_FILE
        return Refusal("unreadable-file", _words(error))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return Refusal("not-a-file", "a folder, a pipe, a socket or a device")
    return descriptor


def read_file(real: str) -> bytes | Refusal:
    """The bytes of a regular file."""
    descriptor = open_file(real)
    if isinstance(descriptor, Refusal):
        return descriptor
    try:
        data = os.read(descriptor, PIECE)
        while piece := os.read(descriptor, max(PIECE, len(data))):  # a short read is no end on every file system
            data += piece
        return data
    except OSError as error:
        return Refusal("unreadable-file", _words(error))
    finally:
        os.close(descriptor)


def measure(real: str) -> tuple[int, str, bytes | None] | Refusal:
    """(size, sha256, the bytes themselves unless it is a large file)."""
    descriptor = open_file(real)
    if isinstance(descriptor, Refusal):
        return descriptor
    try:
        with open(descriptor, "rb", buffering=0) as file:
            if os.fstat(descriptor).st_size <= WHOLE:
                data = file.readall()
                return len(data), hashlib.sha256(data).hexdigest(), data
            state = hashlib.file_digest(file, "sha256")
            return file.tell(), state.hexdigest(), None
    except OSError as error:
        return Refusal("unreadable-file", _words(error))


def changed(name: str) -> LeptonflowError:
    """The error of a source that did not hold still."""
    return LeptonflowError(
        f"{shown(name)} changed while being read",
        expected="a source that does not change while it is ingested",
        hint="Run the same command again when nothing writes into it",
    )


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
