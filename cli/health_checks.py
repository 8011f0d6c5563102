"""`doctor`: whether this machine and store are ready, one line each. Checks; with --fix also sets up the bucket."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from leptonflow.core import store_keys
from schemas.errors import AlreadyExists, Damaged, LeptonflowError, StoreUnreachable, UsageError
from schemas.text import counted

MOST_TOLD = 10
LOWEST, HIGHEST = (3, 11), (3, 13)
OF_STORE = ("store", "logs", "clocks", "landing", "arrivals")
NEEDED = (
    "prefect", "tensorflow", "keras", "numpy", "pandas", "great-expectations", "duckdb", "obstore", "pyarrow",
    "tokenizers",
)  # fmt: skip


def checks(uri: str, fix: bool) -> list[dict[str, Any]]:
    """[{name, ok, detail}] in a fixed order; a check that fails never hides the next."""
    parts: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("store", lambda: _store(uri, fix)),
        ("logs", lambda: _logs(uri)),
        ("clocks", lambda: _clocks(uri)),
        ("landing", lambda: _landing(uri)),
        ("arrivals", lambda: _arrivals(uri, fix)),
        ("prefect", _prefect),
        ("accelerator", _accelerator),
        ("ray", _ray),
    ]
    found = []
    away = False  # an unreachable store is waited for once, and its error printed once
    for name, look in parts:
        try:
            if away and name in OF_STORE:
                raise StoreUnreachable("not checked: the store cannot be used")
            found.append({"name": name, "ok": True, "detail": look()})
        except LeptonflowError as error:
            away = away or isinstance(error, StoreUnreachable)
            found.append({"name": name, "ok": False, "detail": error.line()})
    return found


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if not LOWEST <= sys.version_info[:2] <= HIGHEST:
        raise LeptonflowError("this Python is not supported", expected="3.11 to 3.13", received=version)
    return version


def _packages() -> str:
    missing = []
    found = []
    for name in NEEDED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise LeptonflowError(
            "packages are missing",
            expected=", ".join(NEEDED),
            received=f"no {', '.join(missing)}",
            hint="Run make test",
        )
    return ", ".join(found)


def _store(uri: str, fix: bool) -> str:
    """Can it be reached, and does `create` refuse a key that exists?"""
    from leptonflow.storage import address, objects, store, store_identity

    done: list[str] = []
    if fix and uri.startswith("s3://"):
        from leptonflow.storage import bucket

        done = bucket.ensure_bucket(uri)
    opened = address.open_store(uri)
    identity = store_identity.known_id(opened)
    opened.folders("")  # a store that cannot be read is not checked any further; one that cannot be written is
    try:
        identity = identity or store_identity.store_id(opened)
        opened.check_writable()
        objects.adopt(opened, "doctor/probe", b"probe")
        opened.create("doctor/probe", b"again")
    except AlreadyExists:
        return "; ".join([f"{uri} (id {identity[:8] if identity else '-'}) creates atomically", *done])
    except StoreUnreachable as error:
        raise LeptonflowError(
            f"{uri} can be read but not written", expected="a store that this user may write to",
            received=error.received or error.message, hint=error.hint,
        ) from None  # fmt: skip
    raise store.overwrites(uri)


def _logs(uri: str) -> str:
    """Every commit log of the store: its chain, and no record beyond a gap."""
    from leptonflow.storage import address, commit_log, store_identity

    opened = address.open_store(uri)
    prefixes = [store_keys.log_folder(kind, name) for kind in store_identity.LOGS for name in opened.folders(kind)]
    damaged: list[LeptonflowError] = []
    records = 0
    for prefix in prefixes:
        try:
            records += commit_log.complete(opened, prefix).number
        except Damaged as error:
            damaged.append(error)
    if damaged:
        first = damaged[0]
        raise LeptonflowError(
            "; ".join(error.message for error in damaged),
            expected=first.expected,
            received=first.received,
            hint=first.hint,
        )
    return f"{counted(records, 'record')} in {counted(len(prefixes), 'log')}, without a gap"


def _clocks(uri: str) -> str:
    """Whether a machine whose clock is ahead has written records, or this one's is behind."""
    from leptonflow.core import clock
    from leptonflow.runs import future_records
    from leptonflow.storage import address

    now = clock.now()
    if found := future_records.found(address.open_store(uri), now):
        raise LeptonflowError(
            "records are dated in the future",
            expected=f"nothing later than now, {now}",
            received="; ".join(found[:MOST_TOLD]),
            hint="Set the clocks of the machines that write to the store; until that time is over, a corrected label "
            "does not count, for the latest label of a request does",
        )
    return "no record is dated in the future"


def _landing(uri: str) -> str:
    """Files in landing/ that are never read; also refused batches, and batches that are not closed yet."""
    from leptonflow.data.ingest import batch_state
    from leptonflow.storage import address

    opened = address.open_store(uri)
    never: list[str] = []
    told: list[str] = []
    for pipeline in opened.folders(store_keys.LANDING):
        found = batch_state.lying(opened, pipeline)
        never += found.never_read
        told += found.told

    def more(lines: list[str]) -> list[str]:
        return [f"and {len(lines) - MOST_TOLD} more"] if len(lines) > MOST_TOLD else []

    if never:
        raise LeptonflowError(
            "landing/ has files that are never read",
            expected="batch names that match [a-z0-9][a-z0-9._-]{0,62}, closed by _READY after their last file",
            received="; ".join([*never[:MOST_TOLD], *more(never)]),
            hint="Land them as a batch of their own; `leptonflow discard P BATCH --reason TEXT` discards a batch",
        )
    return "; ".join(["no closed batch has changed since it was read", *told[:MOST_TOLD], *more(told)])


def _arrivals(uri: str, fix: bool) -> str:
    """How `watch` learns of a closed batch on this store."""
    if not uri.startswith("s3://"):
        return "by the file system's events, and a poll every 60 s"
    from leptonflow.storage import bucket

    try:
        if bucket.ensure_notification(uri) if fix else bucket.notifies(uri):
            return f"by MinIO's notifications ({bucket.ARN}), and a poll every 60 s"
    except UsageError as error:  # the extra is not installed
        return f"by a poll every 5 s ({error.line()})"
    if fix:
        return f"by a poll every 5 s: the server has no target {bucket.ARN}"
    return "by a poll every 5 s; `doctor --fix` sets notifications up where MinIO has the webhook target leptonflow"


def _prefect() -> str:
    from flows import addresses, server

    url = server.running()
    if url is None:
        return "none configured: each retrain starts one for this folder, on 127.0.0.1"
    addresses.check(url, login=server.login(url))
    return f"{addresses.without_credentials(url)} answers"


def _accelerator() -> str:
    """Asked of the driver; whether Keras's backend sees it is asked only where there is one."""
    from leptonflow.core import accelerators

    if not accelerators.hidden():
        accelerators.driver("name")  # one that fails is told of
    found = accelerators.gpus()
    if not found:
        return "none (training runs on the CPU)"
    why = accelerators.unused()
    return ", ".join(found) + ("" if why is None else f", unused: training runs on the CPU. {why}")


def _ray() -> str:
    """Every cluster that RAY_ADDRESS or a pipeline of this folder names takes a run, asked in a process of its own."""
    from flows import ray_cluster
    from leptonflow.core import pipeline_files

    named = [os.environ.get("RAY_ADDRESS")]
    for path in pipeline_files.available().values():
        with contextlib.suppress(UsageError):  # whoever uses it is told
            config = pipeline_files.load_config(str(path))
            named.append(config.training.runner.address)
    addresses = sorted({each for each in named if each and each not in ray_cluster.NAMED})
    for each in addresses:
        ray_cluster.check_answers(each)  # before Ray is imported for one
    for each in addresses:
        ray_cluster.check_takes_drivers(each)
    return f"{', '.join(addresses)} answers" if addresses else "no cluster is named"
