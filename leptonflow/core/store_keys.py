"""The keys of a store: which it takes, and every one that leptonflow writes. Plain functions, no store.

A key is relative to the store's root, its segments separated by `/`. What others put on a store may be named anything;
what we create may not. What does not belong here: any input or output.
"""

from __future__ import annotations

import re

from schemas.errors import UsageError

# Inside a class with a method `list` the word no longer names the type.
Names = list[str]

# A temporary file beside its final name. `list` never shows it, and no key may look like it.
TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{16}")
# obstore refuses control characters, SeaweedFS turns a backslash into a slash, lone surrogates are no UTF-8, a listing
# in XML cannot hold U+FFFE and U+FFFF, and U+FFFD is what a server says for a character that it cannot list.
_NOT_IN_NEW_KEYS = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff\ufffd-\uffff]")
LONGEST_SEGMENT = 255  # bytes: a file's name on disk, and MinIO keeps each segment as one


def checked_key(key: str) -> str:
    """`key`, if it can be asked for. UsageError where it is empty, absolute, or has a `.` or `..` segment or a NUL."""
    segments = key.split("/")
    if not key or key.startswith("/") or "\0" in key or "." in segments or ".." in segments:
        raise UsageError(
            "not a valid store key",
            expected="a path relative to the store's root, without . or .. in it",
            received=repr(key),
        )
    return key


def new_key(key: str) -> str:
    """`key`, if it may be created: every store and every server can name it, and nothing of ours hides it."""
    checked_key(key)
    if _NOT_IN_NEW_KEYS.search(key) or not all(_names_one(segment) for segment in key.split("/")):
        raise UsageError(
            "no object can be created under this key",
            expected="segments of 1 to 255 bytes of UTF-8 without control characters and backslashes",
            received=repr(key),
            hint="Names from outside are escaped before they become keys",
        )
    return key


def scratch_key(key: str) -> str:
    """`key`, if it may be removed: it lies under SCRATCH."""
    if not checked_key(key).startswith(f"{SCRATCH}/"):
        raise UsageError("nothing is removed from a store", expected=f"a key under {SCRATCH}/", received=repr(key))
    return key


def _names_one(segment: str) -> bool:
    return 0 < len(segment.encode()) <= LONGEST_SEGMENT and not TEMPORARY.fullmatch(segment)


def checked_prefix(prefix: str) -> str:
    """`prefix` without a slash at its end, if it can be listed; an empty one is the whole store."""
    return checked_key(prefix.rstrip("/")) if prefix else ""


# The folders at the root of a store.
LANDING = "landing"
BATCHES = "batches"
DISCARDED = "discarded"
SNAPSHOTS = "snapshots"
EXAMPLES = "examples"
QUARANTINE = "quarantine"
FITS = "fits"
MODELS = "models"
RUNS = "runs"
PROMOTIONS = "promotions"
APPROVALS = "approvals"
SCORES = "scores"
TABLES = "tables"
COMPACTIONS = "compactions"
STUDIES = "studies"
SERVED = "served"
SHADOW = "shadow"
PINS = "pins"
MONITORING = "monitoring"
SCRATCH = "scratch"

READY = "_READY"  # closes a batch
INGEST = "_INGEST"  # begins one that `ingest` lands


def landing_folder(pipeline: str) -> str:
    """The folder of a pipeline's landed batches."""
    return f"{LANDING}/{pipeline}"


def batch_folder(pipeline: str, batch: str) -> str:
    """The folder of a landed batch."""
    return f"{LANDING}/{pipeline}/{batch}"


def landed_key(pipeline: str, batch: str, name: str) -> str:
    """A file of a landed batch, or its marker READY or INGEST."""
    return f"{LANDING}/{pipeline}/{batch}/{name}"


def outcomes_folder(pipeline: str, batch: str | None = None) -> str:
    """The folder of the outcomes of a pipeline's batches, or of one of them."""
    return f"{BATCHES}/{pipeline}" if batch is None else f"{BATCHES}/{pipeline}/{batch}"


def outcome_key(pipeline: str, batch: str, contract: str) -> str:
    """A batch's outcome under one contract (its digest)."""
    return f"{BATCHES}/{pipeline}/{batch}/{contract}.json"


def discards_folder(pipeline: str) -> str:
    """The folder of the records of discarded batches."""
    return f"{DISCARDED}/{pipeline}"


def discard_key(pipeline: str, batch: str) -> str:
    """The record of a discarded batch, whose name is escaped already."""
    return f"{DISCARDED}/{pipeline}/{batch}.json"


def log_folder(root: str, pipeline: str) -> str:
    """A pipeline's commit log under SNAPSHOTS or PROMOTIONS."""
    return f"{root}/{pipeline}/log"


def dataset_log(pipeline: str) -> str:
    """The commit log of a pipeline's dataset."""
    return log_folder(SNAPSHOTS, pipeline)


def promotions_log(pipeline: str) -> str:
    """The commit log of a pipeline's champions."""
    return log_folder(PROMOTIONS, pipeline)


def compaction_log(table: str) -> str:
    """The commit log of a table's compactions."""
    return f"{COMPACTIONS}/{table}/log"


def record_key(log: str, number: int) -> str:
    """Record `number`, from 1, of a commit log."""
    return f"{log}/{number:08d}.json"


def examples_key(pipeline: str, sha256: str) -> str:
    """A part: examples, changes to them, or canonical digests."""
    return f"{EXAMPLES}/{pipeline}/{sha256}.parquet"


def quarantine_key(pipeline: str, batch: str, sha256: str) -> str:
    """A part with the refused rows of a batch."""
    return f"{QUARANTINE}/{pipeline}/{batch}/{sha256}.parquet"


def fits_folder(pipeline: str, version: str) -> str:
    """The folder of a version's folds and final fit."""
    return f"{FITS}/{pipeline}/{version}"


def fit_key(pipeline: str, version: str, fold: int | None, name: str) -> str:
    """A file of a fold (or, with None, of the final fit)."""
    return f"{FITS}/{pipeline}/{version}/{_fit(fold)}/{name}"


def scratch_folder(pipeline: str, version: str) -> str:
    """The folder of what the fits of a version keep while they are under way."""
    return f"{SCRATCH}/{pipeline}/{version}"


def scratch_pipeline_folder(pipeline: str) -> str:
    """The folder of what the fits of a pipeline keep while they are under way."""
    return f"{SCRATCH}/{pipeline}"


def fit_status_folder(pipeline: str, version: str, fold: int | None) -> str:
    """The folder of how far a fit under way is."""
    return f"{SCRATCH}/{pipeline}/{version}/{_fit(fold)}/status"


def fit_status_key(pipeline: str, version: str, fold: int | None, number: int) -> str:
    """How far a fit under way is; the number grows with it, so that the newest one is the last by name."""
    return f"{fit_status_folder(pipeline, version, fold)}/{number:012d}.json"


def is_fit_status(key: str) -> bool:
    """Whether it says how far a fit under way is."""
    return re.fullmatch(rf"{SCRATCH}/[^/]+/[^/]+/[^/]+/status/\d+\.json", key) is not None


def checkpoints_folder(pipeline: str, version: str, fold: int | None) -> str:
    """The folder of the checkpoints of a fit that is under way."""
    return f"{SCRATCH}/{pipeline}/{version}/{_fit(fold)}/checkpoints"


def checkpoint_key(pipeline: str, version: str, fold: int | None, epoch: int, step: int, sha256: str) -> str:
    """A checkpoint: epoch (from 1) and its steps that are done, so that the newest one is the last by name."""
    return f"{checkpoints_folder(pipeline, version, fold)}/{epoch:06d}-{step:09d}-{sha256}.npz"


def _fit(fold: int | None) -> str:
    return "final" if fold is None else f"fold-{fold}"


def packages_folder(pipeline: str) -> str:
    """The folder of a pipeline's packages."""
    return f"{MODELS}/{pipeline}"


def package_folder(pipeline: str, version: str) -> str:
    """The folder of one package."""
    return f"{MODELS}/{pipeline}/{version}"


def package_key(pipeline: str, version: str, name: str) -> str:
    """A file of a package."""
    return f"{MODELS}/{pipeline}/{version}/{name}"


def load_check_key(pipeline: str, version: str, digest: str) -> str:
    """The result of a package's load check; the digest is that of what was checked, and where."""
    return f"{load_checks_folder(pipeline, version)}/{digest}.json"


def load_checks_folder(pipeline: str, version: str) -> str:
    """The folder of the results of a package's load checks."""
    return f"{MODELS}/{pipeline}/{version}/infra"


def is_load_check(key: str) -> bool:
    """Whether the result of a load check lies there."""
    return re.fullmatch(rf"{MODELS}/[^/]+/[^/]+/infra/.*", key) is not None


def runs_folder(pipeline: str) -> str:
    """The folder of a pipeline's runs."""
    return f"{RUNS}/{pipeline}"


def run_folder(pipeline: str, run_id: str) -> str:
    """The folder of one run."""
    return f"{RUNS}/{pipeline}/{run_id}"


def run_key(pipeline: str, run_id: str, name: str) -> str:
    """A file of a run."""
    return f"{RUNS}/{pipeline}/{run_id}/{name}"


def rejections_folder(pipeline: str) -> str:
    """The folder of the records of retrainings that trained nothing. No run has that id."""
    return run_folder(pipeline, "rejected-data")


def rejection_key(pipeline: str, name: str) -> str:
    """The record of a retraining that trained nothing."""
    return f"{rejections_folder(pipeline)}/{name}.json"


def decision_key(pipeline: str, run_id: str, number: int) -> str:
    """A run's decision against record `number` of the promotions log."""
    return run_key(pipeline, run_id, f"decisions/{number}.json")


def scores_folder(pipeline: str, output: str, at: str) -> str:
    """The folder of what one run of `score` wrote: files of rows, manifest.json."""
    return f"{SCORES}/{pipeline}/{output}/{at}"


def approvals_folder(pipeline: str) -> str:
    """The folder of a pipeline's approvals."""
    return f"{APPROVALS}/{pipeline}"


def approval_key(pipeline: str, run_id: str, name: str) -> str:
    """Of a run that waits for approval, or did: request.json, decision.json, refusal.json, live.json."""
    return f"{APPROVALS}/{pipeline}/{run_id}/{name}"


def table_folder(table: str, pipeline: str | None = None) -> str:
    """The folder of a table's files, or of one pipeline's."""
    return f"{TABLES}/{table}" if pipeline is None else f"{TABLES}/{table}/pipeline={pipeline}"


def table_key(table: str, pipeline: str, name: str) -> str:
    """A table's file for one run, version or batch."""
    return f"{TABLES}/{table}/pipeline={pipeline}/{name}.parquet"


def served_folder(pipeline: str, date: str | None = None, table: str = SERVED) -> str:
    """The folder of a pipeline's prediction log, or of what it has of one date (UTC, YYYY-MM-DD).

    table: `served`, or `shadow` for predictions that answered nobody.
    """
    return f"{table}/{pipeline}" if date is None else f"{table}/{pipeline}/date={date}"


def served_key(pipeline: str, date: str, name: str, table: str = SERVED) -> str:
    """A file of the prediction log."""
    return f"{served_folder(pipeline, date, table)}/{name}.parquet"


def pins_log(pipeline: str) -> str:
    """The commit log of the versions that were served in the champion's place."""
    return log_folder(PINS, pipeline)


def fold_table_key(table: str, pipeline: str, version: str, fold: int | None) -> str:
    """A table's file for one fold of a version whose run was stopped early."""
    return table_key(table, pipeline, f"{version}-{_fit(fold)}")


def drift_records_folder(pipeline: str) -> str:
    """The folder of the records of looks for drift."""
    return f"{MONITORING}/{pipeline}/records"


def drift_record_key(pipeline: str, number: int) -> str:
    """The record of a look for drift, from 1."""
    return record_key(drift_records_folder(pipeline), number)


def drift_page_key(pipeline: str, number: int) -> str:
    """Its page."""
    return f"{MONITORING}/{pipeline}/pages/{number:08d}.html"


def is_drift_record(key: str) -> bool:
    """Whether the record of a look for drift lies there."""
    return re.fullmatch(rf"{MONITORING}/[^/]+/records/\d{{8}}\.json", key) is not None


def drift_reference_key(pipeline: str, version: str) -> str:
    """What a version predicts of examples that it did not learn from.

    `v2`: those of earlier releases, without numbers of the examples themselves, are made anew.
    """
    return f"{MONITORING}/{pipeline}/references/{version}.v2.parquet"


def compacted_key(table: str, sha256: str) -> str:
    """A table's file that a compaction made."""
    return f"{COMPACTIONS}/{table}/{sha256}.parquet"


def studies_folder(pipeline: str) -> str:
    """The folder of a pipeline's studies."""
    return f"{STUDIES}/{pipeline}"


def study_key(pipeline: str, study: str, name: str) -> str:
    """A file of a study."""
    return f"{STUDIES}/{pipeline}/{study}/{name}"


def trials_folder(pipeline: str, study: str) -> str:
    """The folder of a study's trials."""
    return study_key(pipeline, study, "trials")


def trial_key(pipeline: str, study: str, number: int) -> str:
    """The record of a trial, from 1."""
    return record_key(trials_folder(pipeline, study), number)


def is_trial(key: str) -> bool:
    """Whether the record of a trial lies there."""
    return re.fullmatch(rf"{STUDIES}/[^/]+/[^/]+/trials/\d{{8}}\.json", key) is not None
