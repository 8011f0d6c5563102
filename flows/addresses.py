"""Addresses of Prefect APIs: the one that somebody configured, how one is asked, and how it may be shown.

Cheap to import, as flows.server is: httpx is imported with the first request.
What does not belong here: a server of our own (flows.server).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flows import credentials, profile
from schemas.errors import ServerError, UsageError

if TYPE_CHECKING:
    import httpx

ANSWER_SECONDS = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def configured() -> str | None:
    """PREFECT_API_URL of the environment, else of Prefect's active profile, else None."""
    return profile.setting("PREFECT_API_URL")


def check(url: str, timeout: float = ANSWER_SECONDS, login: str | None = None) -> None:
    """Raises ServerError unless a Prefect API answers there, CredentialsRefused where it does not know us.

    `login` is sent, else what is configured; the error shows neither it nor the address's credentials.
    """
    shown = without_credentials(url)
    try:
        status = request("GET", f"{shown.rstrip('/')}/health", timeout).status_code
        ours = credentials.headers(url, login)
        known = request("GET", f"{shown.rstrip('/')}/admin/version", timeout, ours).status_code
    except OSError as error:
        received = str(error)
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


def answers(url: str, timeout: float, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET is answered with 200 in time."""
    try:
        return request("GET", url, timeout, headers).status_code == 200
    except OSError:
        return False


def request(
    method: str, url: str, timeout: float, headers: Mapping[str, str] | None = None, document: object = None
) -> httpx.Response:
    """The answer, whatever its status; a redirect is not followed, which would take the credentials elsewhere.

    document: sent as JSON. timeout: seconds without a byte. Raises OSError where nothing answers.
    """
    import httpx

    parts = urlsplit(url)
    try:
        return httpx.request(
            method,
            url,
            headers=headers,
            json=document,
            timeout=max(timeout, 0.001),
            verify=_tls() if parts.scheme == "https" else False,  # without TLS no certificates are loaded
            trust_env=parts.hostname not in LOOPBACK,  # no proxy can reach this machine's loopback
        )
    # The last two are about the address of a proxy.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _tls() -> ssl.SSLContext:
    file = profile.setting("PREFECT_API_SSL_CERT_FILE")
    try:
        context = ssl.create_default_context(cafile=file)
    except OSError as error:
        raise UsageError(
            "PREFECT_API_SSL_CERT_FILE cannot be read",
            expected="a file of certificates, PEM",
            received=f"{file}: {error.strerror or error}",
        ) from None
    if (profile.setting("PREFECT_API_TLS_INSECURE_SKIP_VERIFY") or "").lower() in ("1", "true", "yes", "on"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
