"""What the parts hand to each other and what lies on the store as JSON. All frozen, all small.

A reference is a key, a digest and counts: never a frame, an array or a model.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from schemas.groups import Group
from schemas.rules import left_out
from schemas.starting import Start, Started
from schemas.workloads import SECTIONS


class Record(BaseModel):
    """Immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ObjectRef(Record):
    """One object on the store: its key relative to the root and the sha256 of its bytes."""

    key: str
    sha256: str
    bytes: int


# --- landing -------------------------------------------------------------------------------------


class LandedFile(Record):
    """One file of a batch. `name` is the original name, `key` relative to the batch's folder."""

    key: str
    name: str
    size: int
    sha256: str


class SourceRow(Record):
    """A row that was quarantined at the source and not landed (path-escape, unreadable, quarantined before)."""

    source: str
    label: str | None
    sha256: str | None
    rule: str
    reason: str


class Listing(Record):
    """The JSON in a `_READY` that `ingest` writes. A plain, empty `_READY` has none."""

    digest: str
    layout: str  # folders, npy, table
    files: tuple[LandedFile, ...]
    known: int
    ignored: int
    rows: tuple[int, ...] | None = None  # table: the original row number of each landed row
    refused: tuple[SourceRow, ...] = ()
    warnings: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()  # folders: where the class folders are, if not at the root
    split: bool = False  # folders: the roots are the parts of a split
    columns: tuple[str | None, str | None] | None = None  # table: its path and label column, where they were named
    cells: tuple[str, ...] | None = None  # table: the columns that hold the example; none named: found by name
    images: tuple[str, ...] | None = None  # table: the name of the file that each landed row means


class Seen(Record):
    """The files of a batch when it was read: how many, and the digest of their names."""

    files: int
    names: str


# --- the dataset ---------------------------------------------------------------------------------


class PartRef(Record):
    """One immutable Parquet part of preprocessed examples."""

    key: str
    sha256: str
    rows: int
    batch: str
    preprocessing: str


class ChangesRef(Record):
    """The Parquet part of a relabelled or retracted record: id, label before, label now (null: retracted), ..."""

    key: str
    sha256: str
    rows: int


class QuarantineRef(Record):
    """The quarantine part of one batch under one contract."""

    key: str
    sha256: str
    rows: int


class Expectation(Record):
    """The result of one Great Expectations expectation over a batch's metadata."""

    expectation: str
    column: str | None
    kwargs: dict[str, Any]
    success: bool
    observed: str | None
    unexpected: int | None


class Outcome(Record):
    """A batch's outcome under one contract: accepted + quarantined + known = arrived."""

    pipeline: str
    batch: str
    contract: str
    outcome: str  # accepted, refused
    arrived: int
    accepted: int
    quarantined: int
    known: int
    ignored: int
    snapshot: str | None
    reasons: dict[str, int]
    quarantine: QuarantineRef | None
    expectations: tuple[Expectation, ...] = ()
    warnings: tuple[str, ...] = ()
    sentence: str
    listing: str | None  # the digest of the batch's listing
    seen: Seen | None = None  # null in one that an earlier release read
    number: int | None = None  # of a refused one: one more than the batch had outcomes under other contracts
    at: str


class Discard(Record):
    """discarded/<pipeline>/<batch>.json: a batch that a person discarded. It is never read (again)."""

    pipeline: str
    batch: str
    reason: str
    who: str
    at: str


class SnapshotRef(Record):
    """A state of the dataset. `snapshot` are the first 12 hex digits of `content`."""

    pipeline: str
    number: int
    snapshot: str
    content: str  # sha256 of sorted (example id, label), each with its group, and the preprocessing digest
    classes: tuple[str, ...]
    preprocessing: str
    holdout: float  # the fraction, fixed by the first snapshot
    parts: tuple[PartRef, ...]
    batches: tuple[str, ...]
    examples: int
    changes: tuple[ChangesRef, ...] = ()  # to the labels in the parts, in the order of their records
    group: Group | None = left_out(None)  # fixed by the first snapshot


class Split(Record):
    """Counts of the split, why it cannot be trained, if it cannot, and what a person should know of its examples."""

    train: int
    holdout: int
    train_per_class: dict[str, int]
    holdout_per_class: dict[str, int]
    rejected: str | None
    warnings: tuple[str, ...] = ()
    train_groups: int | None = None  # null where the pipeline has no groups
    holdout_groups: int | None = None

    @property
    def groups(self) -> dict[str, dict[str, int]]:
        """`groups` of a run's document; nothing in a pipeline without."""
        if self.train_groups is None or self.holdout_groups is None:
            return {}
        return {"groups": {"train": self.train_groups, "holdout": self.holdout_groups}}


# --- a run ---------------------------------------------------------------------------------------


class Plan(Record):
    """What `retrain` would do now. version and run_id are null while there is no snapshot."""

    pipeline: str
    attempt: int
    version: str | None
    run_id: str | None
    snapshot: SnapshotRef | None
    waiting: tuple[str, ...]  # closed batches that neither the log nor a refusal names
    trained: bool  # the package of `version` is whole
    finished: bool  # the run's manifest lies on the store
    start: Start | None = None  # null: from scratch


class EpochValue(Record):
    epoch: int  # from 1
    metric: str
    value: float
    seconds: float  # of the whole epoch


class FitCost(Record):
    """What a fit took. Memory is in bytes; null is what the backend does not tell.

    device              the backend's own name, such as cpu or gpu:0
    compiled            whether a step was compiled, and not run operation by operation
    examples_per_second those learned from, feeding included, evaluation not
    waiting             the share of that time in which a batch was gathered, 0..1
    peak_memory         the largest resident size of the process until the fit's end
    device_seconds      of the fit, times its devices
    """

    device: str
    compiled: bool
    steps: int
    examples_per_second: float
    waiting: float
    peak_memory: int
    peak_device_memory: int | None
    device_seconds: float


class FitResult(Record):
    """The manifest of one fold (fold >= 0) or of the final fit (fold is null)."""

    version: str
    fold: int | None
    metrics: dict[str, float | None]  # of the out-of-fold predictions; {} for the final fit
    epochs: tuple[EpochValue, ...]
    files: tuple[ObjectRef, ...]
    seconds: float
    examples: int
    precision: str | None = left_out(None)  # of training, or float32
    best_epoch: int | None = left_out(None)  # early stopping kept this one
    cost: FitCost | None = left_out(None)  # null: of an earlier release
    start: Started | None = left_out(None)  # null: from scratch


class PackageRef(Record):
    """One immutable model version: what its manifest says, and the sha256 of that manifest."""

    pipeline: str
    version: str
    manifest_sha256: str
    bytes: int


class Hardware(Record):
    """The machine that a version was trained on. `accelerators` are named by Keras's backend; none: the CPU."""

    cpus: int
    cpu: str | None
    machine: str
    system: str
    backend: str
    accelerators: tuple[str, ...]


class Lineage(Record):
    """Where a version comes from. Null is what could not be told: no repository, no lock, no recorded beginning."""

    snapshot: str  # the content's whole sha256
    code: dict[str, str]  # data, train digests
    lock: str | None  # sha256 of requirements.lock
    git_commit: str | None  # of the repository that the YAML lies in
    git_dirty: bool | None  # whether a tracked file of it differs from that commit
    seed: int
    hardware: Hardware
    libraries: dict[str, str]
    started_at: str | None
    finished_at: str
    start: Started | None = left_out(None)  # null: from scratch


class ModelManifest(Record):
    """models/<pipeline>/<version>/manifest.json, written last. One from before lineage was kept has none."""

    pipeline: str
    version: str
    run_id: str
    workload: str
    classes: tuple[str, ...]
    input: Any  # the section of the YAML, as its workload reads it
    preprocessing: str
    snapshot: str
    snapshot_number: int
    config: dict[str, Any]
    cv: dict[str, dict[str, Any]]  # metric: {mean, std, folds[]}
    code: dict[str, str]  # data, train digests
    lineage: Lineage | None = None
    libraries: dict[str, str]
    files: tuple[ObjectRef, ...]  # keys relative to the package's folder
    created_at: str
    number: int | None = None  # one more than there were versions; None in one of a release that gave none
    split_rule: int = 1  # constants.SPLIT_RULE: how what it never learned from was chosen

    @field_validator("input", mode="plain")
    @classmethod
    def _own_section(cls, value: Any, info: ValidationInfo) -> Any:
        sections = SECTIONS.get(info.data.get("workload", ""))
        return value if sections is None else sections.input.validate_python(value)


class HoldoutScores(Record):
    """A version's scores on the current holdout. `metrics` holds per-class ones as recall[cat] too."""

    version: str
    metrics: dict[str, float | None]
    confusion: tuple[tuple[int, ...], ...]  # [true][predicted], rows and columns in `classes` order
    examples: int


class Rival(Record):
    """A champion on the candidate's holdout. `scores` is None: `not_comparable` says why."""

    version: str
    scores: HoldoutScores | None
    not_comparable: str | None
    predictions: ObjectRef | None


class Evaluation(Record):
    """Candidate and champion on the same holdout. `champion_scores` is None: see `not_comparable`."""

    run_id: str
    version: str
    champion: str | None
    candidate_scores: HoldoutScores
    champion_scores: HoldoutScores | None
    not_comparable: str | None
    predictions: ObjectRef  # the candidate's holdout predictions
    champion_predictions: ObjectRef | None = None  # the champion's, of the same examples in the same order
    training: dict[str, float | None] | None = None  # the candidate on training examples, where a rule asks
    baselines: dict[str, dict[str, float | None]] = {}  # majority, logistic: metrics, where a rule asks
    proven: tuple[Rival, ...] = ()  # the best proven champions that are not the last one


class InfraResult(Record):
    """Whether a package, loaded in a fresh process, reproduced its own predictions."""

    version: str
    manifest_sha256: str
    passed: bool
    largest_difference: float | None
    tolerance: float
    examples: int
    sentence: str
    seconds: float
    reused: bool = False
    latency_ms: float | None = None  # 95 of 100 single predictions take at most this long; null where not measured
    package_bytes: int | None = None
    malformed: int = 0  # inputs of a wrong shape, type or length that were each answered with an error
    onnx_difference: float | None = None  # the largest between model.onnx and Keras; null where there is no such file
    onnx: str | None = None  # why model.onnx may not be served here; null: it may, or there is none


class RuleResult(Record):
    """One rule of a verdict. `passed` is null where the rule does not apply; the sentence says why."""

    rule: str
    metric: str | None
    value: float | None
    bound: float | None
    passed: bool | None
    sentence: str
    slice: str | None = None  # class=cat, batch=monday, newest, brightness=[0, 63): what part of the holdout
    low: float | None = None  # the ends of the interval of `value`; null where the rule has none
    high: float | None = None
    confidence: float | None = None
    n: int | None = None  # the examples (or folds) that were used
    method: str | None = None  # of the interval or test, such as wilson, bca bootstrap, tango score, exact mcnemar


class Verdict(Record):
    """The gate's decision, made against record `against` of the promotions log."""

    run_id: str
    version: str
    verdict: str  # promoted, refused, waiting
    rules: tuple[RuleResult, ...]
    sentence: str
    champion: str | None  # before the decision
    against: int
    looks: int = 0  # finished verdicts of this pipeline before this one: each has looked at the holdout
    warnings: tuple[str, ...] = ()
    # Of the holdout, where several examples are one: every test and interval resamples them.
    groups: int | None = left_out(None)
