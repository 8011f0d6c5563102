"""How an S3 server is reached, and what its refusals mean to a person.

One connection, two clients: obstore for everything (it has the conditional put that `create` relies on), and the
`minio` client (the extra `s3`) for what obstore cannot name, and for making buckets. Both are imported when asked for.
What does not belong here: the verbs of a store.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from schemas.errors import StoreRefused, StoreUnreachable, UsageError

if TYPE_CHECKING:
    from minio import Minio
    from obstore.store import ClientConfig, RetryConfig, S3Store

CONNECT_SECONDS = 5
SILENCE_SECONDS = 30  # between two bytes of a server that was reached
RETRY_SECONDS = 10  # no retry starts later than this: with one last connect, 15 s until a dead server is told
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two retries
REQUEST_MINUTES = 30  # a large model over a slow line

_VARIABLES = "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
_DENIED = ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken")
_LOST = (
    "connection ?reset|connection ?closed|connection broken|incomplete ?(message|read)|broken pipe|response body error"
)
# 409 is no answer to "does it exist": two conditional writes met, and the server kept one of them, or neither.
_CONFLICTS = (None, "ConditionalRequestConflict", "OperationAborted")
# What a person understands of the clients' debug output.
_SPOKEN = (
    ("connection ?refused", "connection refused"),
    ("lookup address information|name or service not known|name ?resolution", "the host's name is not known"),
    ("certificate", "the server's certificate is not trusted"),
    ("network is unreachable|no route to host", "no route to the host"),
    (r"timed ?out|kind: timeout", "no answer in time"),
    (_LOST, "the connection was closed"),
)


@dataclass(frozen=True)
class Connection:
    """What AWS_* says. The secrets are in no representation of it."""

    endpoint: str | None  # None: Amazon's own
    region: str
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    token: str | None = field(repr=False)
    patience: float = RETRY_SECONDS  # no retry of a request starts later than this, in seconds

    @property
    def address(self) -> str:
        """The server as it may be shown."""
        return self.endpoint or "https://s3.amazonaws.com"

    def pauses(self) -> Iterator[float | None]:
        """How long to wait after each try that failed; None once patience has run out."""
        deadline = time.monotonic() + self.patience
        pause = FIRST_PAUSE
        while time.monotonic() + pause < deadline:
            yield pause
            pause = min(2 * pause, LONGEST_PAUSE)
        yield None

    def obstore(self, bucket: str, *, patient: bool = False) -> S3Store:
        """A client of one bucket. A `patient` one is for large uploads, whose silence means nothing."""
        from obstore.store import S3Store

        options: ClientConfig = {
            "allow_http": self.address.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(minutes=REQUEST_MINUTES),
        }
        if not patient:
            # The HTTP library counts the sending of the body as silence too, hence the patient client.
            options["read_timeout"] = timedelta(seconds=SILENCE_SECONDS)
        retry: RetryConfig = {
            "max_retries": 10_000,  # as many as fit: their pauses are random, many of them short
            "retry_timeout": timedelta(seconds=self.patience),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_PAUSE),
                "max_backoff": timedelta(seconds=LONGEST_PAUSE),
                "base": 2,
            },
        }
        given = {
            "endpoint": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "session_token": self.token,
        }
        return S3Store(
            bucket,
            region=self.region,
            client_options=options,
            retry_config=retry,
            **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]
        )

    def minio(self, why: str) -> Minio:
        """The `minio` client. UsageError with `why` it is needed, where it is not installed."""
        try:
            import urllib3
            from minio import Minio
        except ImportError:
            raise UsageError(
                f"{why}, which needs the package minio",
                hint="pip install 'leptonflow[s3]' installs it",
            ) from None
        parts = urlsplit(self.address)
        return Minio(
            parts.netloc,
            access_key=self.access_key,
            secret_key=self.secret_key,
            session_token=self.token,
            region=self.region,
            secure=parts.scheme == "https",
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENCE_SECONDS),
                retries=urllib3.Retry(
                    total=2 + int((self.patience - RETRY_SECONDS) / LONGEST_PAUSE),
                    backoff_factor=0.2,
                    backoff_max=LONGEST_PAUSE,
                ),
                maxsize=16,
            ),
        )


_patience: ContextVar[float] = ContextVar("patience", default=RETRY_SECONDS)


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Stores opened in this block try again for that long: work of hours must not be lost to a server's restart."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def patience() -> float:
    """The seconds for which stores opened here try again."""
    return _patience.get()


def connection() -> Connection:
    """The connection that AWS_* describes now. UsageError for an endpoint that is no http(s) address."""
    endpoint = (os.environ.get("AWS_ENDPOINT_URL") or "").rstrip("/") or None
    if endpoint:
        parts = urlsplit(endpoint)
        if "@" in endpoint or parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
            raise UsageError(
                "AWS_ENDPOINT_URL is not the address of a server",
                expected="http://host:port or https://host:port, without credentials",
                received="a value that is not shown here, because it may hold a secret",
            )
    return Connection(
        endpoint=endpoint,
        region=os.environ.get("AWS_REGION") or "us-east-1",
        access_key=os.environ.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY") or None,
        token=os.environ.get("AWS_SESSION_TOKEN") or None,
        patience=_patience.get(),
    )


def unreachable(link: Connection, bucket: str, error: Exception) -> StoreUnreachable:
    """Any failure of either client as one sentence. Only a code and a known phrase of theirs are passed on.

    Their own texts hold request headers, access keys and pages of debug output.
    """
    text = str(error)
    code = _code(error, text)
    if code == "NoSuchBucket":
        return no_bucket(link, bucket)
    refused = "403 Forbidden" in text or "401 Unauthorized" in text or code in _DENIED
    half = link.access_key is None or link.secret_key is None
    # The address is that of a cloud machine's own credentials, which a client asks when it was given none.
    if half and (refused or "169.254.169.254" in text or re.search("Missing (AccessKey|Secret)", text)):
        return StoreRefused(
            f"no S3 credentials for {link.address}",
            expected="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            received="one of them missing" if link.access_key or link.secret_key else "neither",
            hint=f"Set {_VARIABLES}",
        )
    if refused:
        return StoreRefused(
            f"the S3 server {link.address} refused these credentials for the bucket {bucket!r}",
            received=code or "403 Forbidden",
            hint="Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do in this bucket",
        )
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z ]*)?)", text)
    spoken = next((said for pattern, said in _SPOKEN if re.search(pattern, text, re.IGNORECASE)), None)
    reason = code or (status and status[1].strip()) or spoken or type(error).__name__
    return StoreUnreachable(
        f"the S3 server {link.address} cannot be used (bucket {bucket!r})",
        received=reason,
        hint=f"Check that the server is up and that {_VARIABLES} are its own",
    )


def interrupted(error: Exception) -> bool:
    """Whether the connection was lost while a request was under way: whether the server took it is not known."""
    return re.search(_LOST + "|kind: interrupted", str(error), re.IGNORECASE) is not None


def conflicted(error: Exception) -> bool:
    """Whether the server asks to try a conditional write again, which says nothing of what lies there."""
    text = str(error)
    return "status code: 409" in text and _code(error, text) in _CONFLICTS


def no_bucket(link: Connection, bucket: str) -> StoreRefused:
    """The server is there, the bucket is not."""
    return StoreRefused(
        f"the S3 server {link.address} has no bucket {bucket!r}",
        hint="`leptonflow doctor --fix` creates it, with versioning on",
    )


def _code(error: Exception, text: str) -> str | None:
    """The S3 error code, from the minio client's error or from the XML that obstore quotes."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else None
