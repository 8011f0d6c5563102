"""A store in an S3 bucket: MinIO, SeaweedFS, Amazon's, or any other that honours `If-None-Match: *`.

What does not belong here: how the server is reached and how its errors read (s3), and making buckets (bucket).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from leptonflow.core.concurrency import in_order
from leptonflow.core.store_keys import Names, checked_key, checked_prefix, new_key, scratch_key
from leptonflow.storage.s3 import conflicted, connection, interrupted, no_bucket, unreachable
from leptonflow.storage.store import STORE_KEY, already_exists, not_found, overwrites
from schemas.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from minio import Minio
    from obstore.store import S3Store

LARGE = 8 * 2**20
PROBE = ".tmp-0-0000000000000000"  # a temporary's name, which no key may have and no listing shows (keys.TEMPORARY)
Rows = list[tuple[str, int]]  # (key, size)
# obstore and some servers put this character where a key holds one that they cannot say.
_UNSAID = "\ufffd"

Result = TypeVar("Result")
_honouring: set[tuple[str, str]] = set()  # servers and URIs that this process has seen to honour If-None-Match


class ObjectStore:
    """Objects in one bucket, under one prefix. Safe to use from many threads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        parts = urlsplit(uri)
        self.bucket = parts.netloc
        self.prefix = parts.path.strip("/")
        self._link = connection()
        self._bucket_seen = False

    @cached_property
    def _client(self) -> S3Store:
        return self._link.obstore(self.bucket)

    @cached_property
    def _patient(self) -> S3Store:
        return self._link.obstore(self.bucket, patient=True)

    @cached_property
    def _exact(self) -> Minio:
        return self._link.minio("an S3 client put an object here whose key obstore cannot name")

    def create(self, key: str, data: bytes) -> None:
        new_key(key)
        self._require_conditions()
        self._create(key, data)

    def _create(self, key: str, data: bytes) -> None:
        import obstore

        full = self._full(key)
        client = self._patient if len(data) > LARGE else self._client
        with self._translated(key):
            # obstore repeats no write whose connection was lost. A repeated `create` changes nothing.
            self._again(lambda: obstore.put(client, full, data, mode="create", use_multipart=False))

    def _require_conditions(self) -> None:
        """Raises StoreRefused where the server ignores If-None-Match, before anything is overwritten.

        One request for each process and store: the probe lies there, and to create it again is refused.
        """
        place = (self._link.address, self.uri)
        if place in _honouring:
            return
        for _ in range(2):  # the first one of a new store makes it
            try:
                self._create(PROBE, b"probe")
            except AlreadyExists:
                _honouring.add(place)
                return
        raise overwrites(self.uri)

    def _again(self, request: Callable[[], Result]) -> Result:
        """The request's reply; repeated with backoff while its connection is lost, or the server requires that."""
        for pause in self._link.pauses():
            try:
                return request()
            except Exception as error:
                if pause is None or not (interrupted(error) or conflicted(error)):
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def replace_identity(self, data: bytes) -> None:
        import obstore

        self._require_conditions()
        with self._translated(STORE_KEY):
            self._again(lambda: obstore.put(self._client, self._full(STORE_KEY), data, use_multipart=False))

    def remove_scratch(self, key: str) -> None:
        import obstore

        full = self._full(scratch_key(key))
        try:
            with self._translated(key):
                self._again(lambda: obstore.delete(self._client, full))
        except NotFound:  # S3 itself does not say
            return

    def create_many(self, items: Iterable[tuple[str, bytes]]) -> Names:
        def one(item: tuple[str, bytes]) -> str | None:
            try:
                self.create(*item)
            except AlreadyExists:
                return item[0]
            return None

        return [key for key in in_order(one, items) if key is not None]

    def get(self, key: str) -> bytes:
        full = self._full(checked_key(key))
        with self._translated(key):
            return self._again(lambda: self._get(full))

    def _get(self, full: str) -> bytes:
        import obstore

        try:
            # obstore goes on after a body that was cut, where the object has an ETag.
            return bytes(obstore.get(self._client, full).bytes())
        except (ValueError, obstore.exceptions.InvalidPathError):
            return self._get_exactly(full)

    def get_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        return in_order(self.get, keys)

    def size(self, key: str) -> int | None:
        import obstore

        full = self._full(checked_key(key))
        try:
            with self._translated(key):
                try:
                    return int(obstore.head(self._client, full)["size"])
                except (ValueError, obstore.exceptions.InvalidPathError):
                    return self._size_exactly(full)
        except NotFound:
            self._require_bucket()
            return None

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        full = self._full(checked_prefix(prefix))
        with self._translated(prefix):
            found = self._again(lambda: self._list(full))
        start = len(self.prefix) + 1 if self.prefix else 0
        return iter(sorted((key[start:], size) for key, size in found if key[start:] != PROBE))

    def _list(self, full: str) -> Rows:
        import obstore

        try:
            pages = obstore.list(self._client, prefix=full or None, chunk_size=1000)
            found = [(entry["path"], entry["size"]) for page in pages for entry in page]
            if any(_UNSAID in key for key, _ in found):
                return self._list_exactly(full)
            return self._without_folder_marks(found)
        except obstore.exceptions.InvalidPathError:
            # One newline in one name, and obstore lists nothing of the whole prefix.
            return self._list_exactly(full)

    def keys(self, prefix: str) -> Names:
        return [key for key, _ in self.list(prefix)]

    def folders(self, prefix: str) -> Names:
        full = self._full(checked_prefix(prefix))
        with self._translated(prefix):
            return self._again(lambda: self._folders(full))

    def _folders(self, full: str) -> Names:
        import obstore

        try:
            found = obstore.list_with_delimiter(self._client, prefix=full or None)
            names = [name.rstrip("/").rsplit("/", 1)[-1] for name in found["common_prefixes"]]
            said = [*names, *(entry["path"] for entry in found["objects"])]
            exact = any(_UNSAID in name for name in said)
        except obstore.exceptions.InvalidPathError:
            exact = True
        if exact:
            start = full + "/" if full else ""
            listed = self._exact.list_objects(self.bucket, prefix=start)
            inside = (str(each.object_name).removeprefix(start) for each in listed if each.is_dir)
            names = [name.rstrip("/") for name in inside if name.strip("/")]
        return sorted(set(names))

    def check_writable(self) -> None:
        return  # the server refuses a `create` before it looks whether the key exists

    def modified(self, prefix: str) -> datetime | None:
        import obstore

        full = self._full(checked_prefix(prefix))

        def newest() -> datetime | None:
            try:
                pages = obstore.list(self._client, prefix=full or None, chunk_size=1000)
                return max((entry["last_modified"] for page in pages for entry in page), default=None)
            except obstore.exceptions.InvalidPathError:  # a name that obstore cannot list
                return None

        with self._translated(prefix):
            return self._again(newest)

    def path(self, key: str) -> Path | None:
        checked_prefix(key)
        return None

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _without_folder_marks(self, found: Rows) -> Rows:
        """`found` without the empty objects named `folder/` that S3 consoles make.

        obstore lists one as `folder`, and only asking for that name tells it from an empty object.
        """
        import obstore

        def is_mark(key: str) -> bool:
            try:
                obstore.head(self._client, key)
            except FileNotFoundError:
                return True
            return False

        empty = [key for key, size in found if size == 0]
        marks = {key for key, mark in zip(empty, in_order(is_mark, empty), strict=True) if mark}
        return [(key, size) for key, size in found if key not in marks]

    def _list_exactly(self, full: str) -> Rows:
        """The same listing with every key as its bytes are, folder marks left out."""
        listed = self._exact.list_objects(self.bucket, prefix=full + "/" if full else "", recursive=True)
        pairs = ((str(each.object_name), each.size or 0) for each in listed)
        return [(key, size) for key, size in pairs if size or not key.endswith("/")]

    def _get_exactly(self, full: str) -> bytes:
        response = self._exact.get_object(self.bucket, full)
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    def _size_exactly(self, full: str) -> int:
        return int(self._exact.stat_object(self.bucket, full).size or 0)

    def _require_bucket(self) -> None:
        """A HEAD has no body: only asking for a list tells a missing object from a missing bucket."""
        import obstore

        if not self._bucket_seen:
            with self._translated("a bucket's presence"):
                for _ in obstore.list(self._client, prefix="leptonflow-asks-for-the-bucket"):
                    break
            self._bucket_seen = True

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Both clients' exceptions as ours. What is not theirs passes.

        Theirs are not kept as a cause: a traceback in a log would quote the request's signed headers.
        """
        import obstore.exceptions

        try:
            yield
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket" in str(error):
                raise no_bucket(self._link, self.bucket) from None
            raise not_found(self.uri, key) from None
        except obstore.exceptions.AlreadyExistsError as error:
            if conflicted(error):
                raise unreachable(self._link, self.bucket, error) from None
            raise already_exists(self.uri, key) from None
        except obstore.exceptions.BaseError as error:
            raise unreachable(self._link, self.bucket, error) from None
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("minio", "urllib3"):
                raise
            if getattr(error, "code", None) in ("NoSuchKey", "NoSuchObject", "XMinioInvalidObjectName"):
                raise not_found(self.uri, key) from None
            raise unreachable(self._link, self.bucket, error) from None
