"""Addresses of Prefect APIs: the one that somebody configured, whether it answers, and how it may be shown.

Cheap to import, as flows.server is. What does not belong here: a server of our own (flows.server).
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from flows import credentials, profile
from schemas.errors import ServerError

ANSWER_SECONDS = 5.0


def configured() -> str | None:
    """PREFECT_API_URL of the environment, else of Prefect's active profile, else None."""
    return profile.setting("PREFECT_API_URL")


def check(url: str, timeout: float = ANSWER_SECONDS, login: str | None = None) -> None:
    """Raises ServerError unless a Prefect API answers there, CredentialsRefused where it does not know us.

    `login` is sent, else what is configured; the error shows neither it nor the address's credentials.
    """
    shown = without_credentials(url)
    try:
        status = get(f"{url.rstrip('/')}/health", timeout)
        known = get(f"{url.rstrip('/')}/admin/version", timeout, credentials.headers(url, login))
    except (OSError, ValueError, http.client.HTTPException) as error:
        received = str(error) or type(error).__name__
        hint = "Start that server, fix PREFECT_API_URL, or unset it (and the active profile's) for an embedded one"
    else:
        if known == 401:
            raise credentials.refused(shown, known)
        if status in (200, 401, 403):  # a proxy may ask for the key that Prefect's client will send
            return
        received = f"HTTP status {status}"
        hint = "The address of a Prefect API ends in /api"
    raise ServerError(
        f"the Prefect server at {shown} does not answer", expected="a Prefect API", received=received, hint=hint
    )


def without_credentials(url: str) -> str:
    """The address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is not a URL"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def get(url: str, timeout: float, headers: Mapping[str, str] | None = None) -> int:
    """The HTTP status of a GET. Raises OSError where nothing answers in time."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http:// or https:// address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=max(timeout, 0.001))
    try:
        connection.request("GET", parts.path, headers=headers or {})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
