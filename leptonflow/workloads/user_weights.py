"""Where the weights of `model.weights` lie on this machine: beside the YAML, or fetched once from their URI.

What was fetched is kept under the user's cache folder by its sha256, and hashed again before each use. What does not
belong here: what is loaded from it (the user's model function).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from leptonflow.core import declared_files, files
from leptonflow.storage.address import open_store
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, NotFound, StoreUnreachable
from schemas.own_model import Weights

SECONDS = 60.0  # of a server's silence


def path(config: Pipeline) -> Path | None:
    """The file on this machine; None where the model declares no weights.

    Raises ConfigurationError where it is missing or another one, StoreUnreachable where its server does not answer.
    """
    given = getattr(config.model, "weights", None)
    if given is None:
        return None
    return declared_files.declared(config)[given] if isinstance(given, str) else _fetched(given)


def _fetched(given: Weights) -> Path:
    if given.uri.startswith("file://"):
        local = Path(unquote(urlsplit(given.uri).path))
        try:
            return _checked(given, local, files.digest(local))
        except OSError as error:
            raise _missing(given, error.strerror or str(error)) from None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "leptonflow" / given.sha256 / given.name
    if kept.is_file() and files.digest(kept) == given.sha256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        part = Path(folder) / given.name
        with part.open("wb") as file:
            file.writelines(_pieces(given))
        _checked(given, part, files.digest(part))
        return part.replace(kept)


def _pieces(given: Weights) -> Iterator[bytes]:
    import httpx

    folder, _, name = given.uri.rpartition("/")
    try:
        if given.uri.startswith("s3://"):
            yield open_store(folder).get(name)
            return
        with httpx.stream("GET", given.uri, timeout=SECONDS, follow_redirects=True) as answer:
            answer.raise_for_status()
            yield from answer.iter_bytes()
    except NotFound:
        raise _missing(given, "no such object") from None
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise (_missing if status in (404, 410) else _unreachable)(given, f"HTTP status {status}") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:  # the last two: of a proxy's address
        raise _unreachable(given, str(error) or type(error).__name__) from None


def _checked(given: Weights, local: Path, found: str) -> Path:
    if found != given.sha256:
        raise ConfigurationError(
            f"model.weights: {given.uri} is another file",
            expected=f"sha256 {given.sha256}", received=f"sha256 {found}", hint="Fix model.weights.sha256, or the file",
        )  # fmt: skip
    return local


def _missing(given: Weights, received: str) -> ConfigurationError:
    return ConfigurationError(
        f"model.weights: there is no file at {given.uri}", expected="a file of weights", received=received,
        hint="Fix model.weights.uri",
    )  # fmt: skip


def _unreachable(given: Weights, received: str) -> StoreUnreachable:
    return StoreUnreachable(
        f"model.weights: {given.uri} cannot be fetched", expected="its server's answer", received=received,
        hint="Run the same command again to continue, or put the file beside the YAML",
    )  # fmt: skip
