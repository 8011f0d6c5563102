"""A person's decision about a run that waits, from the form of the board: who they are is the name of their key.

The key comes in the form, not in a cookie or a login that a browser sends by itself, and the form must come from a page
of this server. What approving and rejecting do does not belong here (approval).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from leptonflow.core import clock, pipeline_files
from leptonflow.runs import approval
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, UsageError
from serving.api_keys import Keys, owner
from serving.problems import told

LARGEST = 16_384  # bytes of a form
DECISIONS = ("approve", "reject")


@dataclass(frozen=True)
class Form:
    """What was filled in. who: the name of the key."""

    who: str
    reason: str
    decision: str


def parsed(headers: Mapping[str, str], body: bytes, keys: Keys) -> Form:
    """Raises Problem: 403 where it comes from a page of another server or has no known key, 400 where it is none."""
    origin, host = headers.get("origin", ""), headers.get("host", "")
    if not host or urlsplit(origin).netloc != host:
        raise told(403, "the form did not come from a page of this server", expected=f"the origin of {host}")
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=10)
    except ValueError:
        fields = {}
    key, reason, decision = (fields.get(name, [""])[0].strip() for name in ("key", "reason", "decision"))
    if decision not in DECISIONS:
        raise told(400, "not the form of a decision", expected="key, reason, and approve or reject")
    who = owner(keys, key.encode())
    if who is None:
        raise told(403, "no such key", expected="a key whose entry is in LEPTONFLOW_API_KEYS of this server")
    return Form(who, reason, decision)


def decide(store: Store, config: Pipeline, run_id: str, form: Form) -> dict[str, Any]:
    """The document of `approve` or `reject`. Raises what `approval` raises."""
    if not form.reason:
        raise UsageError("the reason is empty", expected="a few words that explain the decision")
    if form.decision == "reject":
        return approval.reject(store, config, run_id, form.who, form.reason, clock.now())
    return approval.approve(store, config, run_id, form.who, form.reason, clock.now(), evaluates=False)


def configured(known: Mapping[str, Pipeline], name: str) -> Pipeline | None:
    """The pipeline's YAML: of what is served here, else under pipelines/ of the folder that the server runs in."""
    if name in known:
        return known[name]
    try:
        return pipeline_files.load_config(name)
    except (UsageError, ConfigurationError):
        return None
