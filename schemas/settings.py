"""Where the store is, and what is switched off in every dependency. Read when asked, never on import."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import UsageError

DEFAULT_STORE = Path(".leptonflow")
EXPECTED = "file:///folder, s3://bucket/prefix or a folder's path"
VARIABLE = re.compile(r"\$\{?[A-Za-z_]|%[A-Za-z_]\w*%")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
QUERY_SECONDS = 300.0
QUERY_MEMORY = "2GB"
IMAGE_MEMORY = "1GB"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

QUIET = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "TQDM_DISABLE": "1",
}


def quiet() -> None:
    """Set the environment that keeps dependencies silent and untracked; what the user set stands."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def verbose() -> bool:
    """Whether the log of a run is wanted on the terminal: the option --verbose, or LEPTONFLOW_VERBOSE."""
    return bool(os.environ.get("LEPTONFLOW_VERBOSE"))


def package_code() -> bool:
    """Whether code that lies in a package may be run although no YAML here asks for it: LEPTONFLOW_PACKAGE_CODE=1."""
    return os.environ.get("LEPTONFLOW_PACKAGE_CODE") == "1"


def board_url() -> str | None:
    """Where the pages of `leptonflow board` are, LEPTONFLOW_BOARD_URL without a slash at its end; None where unset.

    Raises UsageError for what is no address of a web page, and does not repeat it: it may hold a secret.
    """
    given = os.environ.get("LEPTONFLOW_BOARD_URL") or None
    if given is None:
        return None
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise UsageError(
            "LEPTONFLOW_BOARD_URL is not the address of a board",
            expected="an address such as https://board.example.com, without user information",
            received="something else, which is not shown",
        )
    return given.rstrip("/")


def query_seconds() -> float:
    """How long a query may take: LEPTONFLOW_QUERY_SECONDS, else 300."""
    given = os.environ.get("LEPTONFLOW_QUERY_SECONDS") or str(QUERY_SECONDS)
    if not re.fullmatch(r"\d{1,9}(\.\d+)?", given) or float(given) <= 0:
        raise UsageError(
            "LEPTONFLOW_QUERY_SECONDS is not a number of seconds", expected="seconds, such as 300", received=given
        )
    return float(given)


def query_memory() -> int:
    """The bytes of memory that a query may take: LEPTONFLOW_QUERY_MEMORY, else 2 GB."""
    return _size("LEPTONFLOW_QUERY_MEMORY", QUERY_MEMORY)


def image_memory() -> int:
    """The bytes of memory that one image may need to be decoded: LEPTONFLOW_IMAGE_MEMORY, else 1 GB."""
    return _size("LEPTONFLOW_IMAGE_MEMORY", IMAGE_MEMORY)


def training_memory() -> int | None:
    """The bytes of memory that the examples of a training may take: LEPTONFLOW_TRAINING_MEMORY; None where unset."""
    name = "LEPTONFLOW_TRAINING_MEMORY"
    return _size(name, "") if os.environ.get(name) else None


def _size(name: str, default: str) -> int:
    given = os.environ.get(name) or default
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?) ?([KMGT]B)", given, re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 10**6:
        raise UsageError(f"{name} is not a size", expected="a size such as 500MB or 2GB", received=given)
    return size


def store_uri(given: str | None = None) -> str:
    """The store's URI: `given`, else LEPTONFLOW_STORE, else ./.leptonflow as a file:// URI.

    Raises UsageError for a name that is no store's, and for a URI with user information or a query in it, which it
    does not echo.
    """
    return checked_uri(given if given is not None else named_store() or DEFAULT_STORE.absolute().as_uri())


def named_store() -> str | None:
    """LEPTONFLOW_STORE; None where it is unset or empty, which is the same to a shell and to Compose."""
    return os.environ.get("LEPTONFLOW_STORE") or None


def checked_uri(raw: str) -> str:
    """`raw` as a URI that may be shown and stored; a plain path becomes file://."""
    if "://" not in raw:
        _whole(raw, raw)
        return Path(raw).absolute().as_uri()
    parts = urlsplit(raw)
    if "@" in parts.netloc or parts.query or parts.fragment or parts.username or parts.password:
        raise UsageError(
            "the store's URI carries user information or a query",
            expected=EXPECTED,
            received="a URI that is not shown here, because it may hold a secret",
            hint="S3 is configured by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
        )
    uri = parts.scheme + raw[len(parts.scheme) :]  # a scheme's case means nothing
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        _whole(raw, _without_escapes(parts.path))
        return uri.rstrip("/") if parts.path != "/" else uri
    if parts.scheme == "s3" and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc):
        _whole(raw, _without_escapes(parts.path))
        return uri.rstrip("/")
    if parts.scheme == "memory":
        return uri
    raise UsageError("the store's URI has a form that leptonflow does not know", expected=EXPECTED, received=raw)


def _whole(raw: str, path: str) -> None:
    """Raises UsageError where a shell was meant to complete the name, or to take quotes away from it.

    systemd, Compose and .env files do neither: taken literally such a name is a new and empty store.
    """
    wrong = (
        not raw.strip()
        or raw != raw.strip()
        or any(c < " " or c == "\x7f" for c in raw)
        or path[:1] in ("~", "'", '"')
        or VARIABLE.search(path)
        or ("://" not in raw and SCHEME.match(raw))
    )
    if wrong:
        raise UsageError(
            "not a store's name: it is not expanded here",
            expected=EXPECTED,
            received=repr(raw),
            hint="Write the whole path, without ~, $NAME, %NAME% and quotes; a folder that is called so is ./NAME or a "
            "file:/// URI with %24 for $",
        )


def _without_escapes(path: str) -> str:
    return re.sub("%[0-9A-Fa-f]{2}", "", path.lstrip("/"))
