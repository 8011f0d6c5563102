"""Where a version comes from: its data, its code, its libraries and the machine that trained it.

What a machine cannot tell is null, and nothing here ever ends a packaging. What does not belong here:
which of it matters for a result (code_digests), and how it is shown (model_cards, comparison).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from leptonflow.core import clock, store_keys
from leptonflow.core.code_digests import ROOT, backend, libraries
from leptonflow.core.hashing import sha256
from leptonflow.data.dataset import dataset_state
from leptonflow.keras_runtime import keras_models
from leptonflow.storage.objects import parsed
from leptonflow.storage.store import Store
from schemas.config import Pipeline
from schemas.errors import Damaged, NotFound
from schemas.records import Hardware, Lineage, ModelManifest, Plan, SnapshotRef
from schemas.starting import Started
from schemas.text import counted

LOCK = "requirements.lock"
GIT_SECONDS = 5.0
# Beside Keras and its backend: what examples and numbers pass through between a file and a prediction.
OTHER_LIBRARIES = ("leptonflow", "numpy", "pillow", "pyarrow", "scikit-learn")


def lineage(
    store: Store,
    config: Pipeline,
    plan: Plan,
    snapshot: SnapshotRef,
    code: dict[str, str],
    start: Started | None = None,
) -> Lineage:
    """What is known here and now of a version that was just trained.

    start: what its final fit started from; started_at is when the plan's run began, null where that is not recorded;
    finished_at is now.
    """
    commit, dirty = git(config.folder)
    return Lineage(
        snapshot=snapshot.content,
        code=code,
        lock=lock(config.folder),
        git_commit=commit,
        git_dirty=dirty,
        seed=config.training.seed,
        hardware=hardware(),
        libraries=versions(),
        started_at=_started(store, plan),
        finished_at=clock.now(),
        start=start,
    )


def _started(store: Store, plan: Plan) -> str | None:
    key = store_keys.run_key(plan.pipeline, plan.run_id or "", "started.json")
    try:
        return str(parsed(store, key, json.loads)["started_at"])
    except (NotFound, ValueError, TypeError, KeyError):  # not begun by a run, or not what one writes there
        return None


def snapshot_of(store: Store, config: Pipeline, manifest: ModelManifest, number: int | None = None) -> SnapshotRef:
    """The dataset that a version learned from, or as of another record of its log, whatever came later.

    Raises Damaged where the log does not reach so far.
    """
    log = dataset_state.snapshots(store, config.name)
    number = manifest.snapshot_number if number is None else number
    state = dataset_state.state(config, replace(log, entries=log.entries[:number]))
    if state is None or log.number < number:
        raise Damaged(
            f"{log.prefix} is shorter than it was",
            expected=f"record {number}, which the version {manifest.version} learned from",
            received=counted(log.number, "record"),
            hint="Put the missing records back from a backup",
        )
    return state.model_copy(update={"classes": manifest.classes})


def versions() -> dict[str, str]:
    """The versions of Python, Keras, its backend and the libraries that examples pass through."""
    found = {**libraries(), "python": platform.python_version()}
    for name in OTHER_LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout that was never installed
            continue
    return dict(sorted(found.items()))


def hardware() -> Hardware:
    """This machine, and what Keras's backend would compute on besides its processors."""
    return Hardware(
        cpus=os.cpu_count() or 1,
        cpu=_processor(),
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        backend=backend(),
        accelerators=_accelerators(),
    )


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in (*names, platform.processor()) if name), None)


def _accelerators() -> tuple[str, ...]:
    """Such as gpu:0 NVIDIA H100 80GB HBM3: the backend's own name, and the driver's where it tells as many."""
    try:
        devices = keras_models.keras().distribution.list_devices()
    except (AttributeError, NotImplementedError):  # a backend that lists none (PyTorch)
        return ()
    named = sorted(str(device) for device in devices if not str(device).startswith("cpu"))
    models = _nvidia()
    if len(models) == len(named):
        return tuple(f"{device} {model}" for device, model in zip(named, models, strict=True))
    return tuple(named)


def _nvidia() -> list[str]:
    found = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                found.append(line.partition(":")[2].strip())
    return found


def lock(folder: Path) -> str | None:
    """The sha256 of the nearest requirements.lock: in the YAML's folder, above it, or beside leptonflow; else None."""
    for place in (folder.absolute(), *folder.absolute().parents, ROOT):
        try:
            return sha256((place / LOCK).read_bytes())
        except OSError:
            continue
    return None


def git(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, whether a tracked file differs from it) of the repository that the folder lies in; nulls without one.

    Runs no hook, no file-system monitor, takes no lock and asks nobody; a slow repository is none.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return commit.strip(), None if changed is None else bool(changed.strip())


def _git(folder: Path, *arguments: str) -> str | None:
    # A git that called us has set GIT_DIR and more, which would name its repository and not the folder's.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, env={**clean, **quiet}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):  # no git here, no such folder, or no answer in time
        return None
    return done.stdout if done.returncode == 0 else None
