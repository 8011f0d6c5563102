"""Logins of Prefect APIs: what a client sends, and the one that a server of ours asks for. No import of Prefect.

What does not belong here: which server there is (server), and its address (addresses).
"""

from __future__ import annotations

import base64
import secrets
from urllib.parse import unquote, urlsplit

from flows.profile import setting
from schemas.errors import ServerError, UsageError

USER = "leptonflow"


class CredentialsRefused(ServerError):
    """The server is there, and does not know us."""


def new() -> str:
    """A login that nobody guesses: user:password."""
    return f"{USER}:{secrets.token_urlsafe(24)}"


def own() -> str | None:
    """The login that the person wants a server of theirs to have, or None. Raises UsageError for one that none can."""
    given = setting("PREFECT_SERVER_API_AUTH_STRING")
    return None if given is None else usable(given, "PREFECT_SERVER_API_AUTH_STRING")


def usable(login: str, where: str) -> str:
    """The login. Raises UsageError, which does not show it, where Prefect's server could not compare it: only ASCII."""
    if login.isascii() and login.isprintable():
        return login
    raise UsageError(
        f"{where} cannot be the login of a Prefect server",
        expected="user:password in printable ASCII characters",
        received="other characters",
        hint="Choose another one",
    )


def headers(url: str, login: str | None = None) -> dict[str, str]:
    """As Prefect's client: `login`, else the configured auth string, else the key; else what the address carries."""
    pair, key = login or setting("PREFECT_API_AUTH_STRING"), setting("PREFECT_API_KEY")
    parts = urlsplit(url)
    if pair is None and key is None and parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    if pair is not None:
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def refused(shown: str, status: int) -> CredentialsRefused:
    """The error for an answer of 401 or 403 of the server at `shown`, an address without credentials."""
    return CredentialsRefused(
        f"the Prefect server at {shown} refused the credentials",
        expected="PREFECT_API_AUTH_STRING or PREFECT_API_KEY as that server has it",
        received=f"HTTP status {status}",
        hint="Set it in the environment, or in Prefect's active profile; for a `leptonflow up`, "
        "`leptonflow up --show-login` in its folder shows it",
    )
