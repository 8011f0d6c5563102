"""Where the store is, and what is switched off in every dependency. Read when asked, never on import."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import UsageError

DEFAULT_STORE = Path(".leptonflow")

QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "TQDM_DISABLE": "1",
}


def quiet() -> None:
    """Set the environment that keeps dependencies silent and untracked; what the user set stands."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def store_uri(given: str | None = None) -> str:
    """The store's URI: `given`, else LEPTONFLOW_STORE, else ./.leptonflow as a file:// URI.

    Raises UsageError for a URI with user information or a query in it, and does not echo it.
    """
    raw = given or os.environ.get("LEPTONFLOW_STORE") or DEFAULT_STORE.absolute().as_uri()
    return checked_uri(raw)


def checked_uri(raw: str) -> str:
    """`raw` as a URI that may be shown and stored; a plain path becomes file://."""
    expected = "file:///folder, s3://bucket/prefix or a folder's path"
    if "://" not in raw:
        return Path(raw).absolute().as_uri()
    parts = urlsplit(raw)
    if "@" in parts.netloc or parts.query or parts.fragment or parts.username or parts.password:
        raise UsageError(
            "the store's URI carries user information or a query",
            expected=expected,
            received="a URI that is not shown here, because it may hold a secret",
            hint="S3 is configured by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
        )
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return raw.rstrip("/") if parts.path != "/" else raw
    if parts.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc):
        return raw.rstrip("/")
    if parts.scheme == "memory":
        return raw
    raise UsageError("the store's URI is not one that leptonflow knows", expected=expected, received=raw)
