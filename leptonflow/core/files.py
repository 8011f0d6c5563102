"""Files that a person's configuration or command names: regular ones, of a size that can be held.

What does not belong here: the store's files, and those of a source (`landing`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import lru_cache
from pathlib import Path

TEXT = 4 * 2**20  # bytes of a configuration's file
EXAMPLES = 2**30  # bytes of a file to predict for


def read(path: Path, most: int) -> bytes:
    """The file's bytes. Raises OSError, with what it is where it is no regular file: a pipe or a device never ends."""
    _check(os.stat(path))
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _check(os.fstat(file.fileno()))  # what lies there now
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // 2**20} MiB")
    return data


def regular(path: Path) -> Path:
    """The path of a regular file. Raises OSError, with what it is where it is something else."""
    _check(os.stat(path))
    return path


def digest(path: Path) -> str:
    """The sha256 of a regular file of any size, as 64 hex digits. Raises OSError."""
    found = os.stat(regular(path))
    return _digest(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, *state: int) -> str:
    """Once for each state of the file: a watcher asks every few seconds, and weights are large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def below(folder: Path, name: str) -> Path:
    """Where the file `name` of a folder really lies. Raises OSError where a link or .. leads out of the folder."""
    try:
        path = (folder / name).resolve()
    except (ValueError, RuntimeError):  # a null character; links in a circle
        raise OSError(errno.EINVAL, "no file can have that name") from None
    if not path.is_relative_to(folder.resolve()):
        raise OSError(errno.EPERM, f"it lies outside of the folder {folder}, at {path}")
    return path


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}, not a file")


_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip
