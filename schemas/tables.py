"""The tables that analytics reads: the columns of each, and where its rows come from.

Columns may be added, never renamed: people's queries and other pipelines rely on them. How rows are
made belongs to `leptonflow.tables.table_files`, how they are read to `leptonflow.tables.queries`.

COLUMNS are plain, so that a query knows its tables before it has imported pyarrow.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def _columns(**kinds: str) -> dict[str, str]:
    """name: text, int (64 bits), float (64 bits), bool, time (UTC, microseconds), floats (32 bits each) or bytes."""
    return kinds


@cache
def schema(table: str) -> pa.Schema:
    """The table's columns as a pyarrow schema."""
    import pyarrow as pa

    types = {
        "text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"), "floats": pa.list_(pa.float32()), "bytes": pa.binary(),
    }  # fmt: skip
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS[table].items()])


# --- written once per batch and contract, under <batch>-<contract> --------------------------------

BATCHES = _columns(
    pipeline="text",
    batch="text",
    contract="text",
    outcome="text",
    arrived="int",
    accepted="int",
    quarantined="int",
    known="int",
    ignored="int",
    snapshot="text",
    at="time",
    listing="text",
    sentence="text",
)

# `fact` is the column of the example facts that the expectation is about: "column" is a word of SQL's own.
VALIDATIONS = _columns(
    pipeline="text",
    batch="text",
    contract="text",
    number="int",
    expectation="text",
    fact="text",
    kwargs="text",
    success="bool",
    observed="text",
    unexpected="int",
    at="time",
)

# The schema of quarantine/<pipeline>/<batch>/<digest>.parquet too: the part is the table's only source.
QUARANTINE = _columns(
    pipeline="text",
    batch="text",
    contract="text",
    source="text",
    label="text",
    sha256="text",
    rule="text",
    reason="text",
)

# --- written once per version, under <version> ---------------------------------------------------

MODELS = _columns(
    pipeline="text",
    version="text",
    run_id="text",
    manifest_sha256="text",
    bytes="int",
    created_at="time",
    workload="text",
    snapshot="text",
    snapshot_number="int",
)

FOLDS = _columns(pipeline="text", run_id="text", version="text", fold="int", metric="text", value="float")

EPOCHS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    fold="int",
    epoch="int",
    metric="text",
    value="float",
    seconds="float",
)

# A fold, or with a null fold the final fit. Memory is in bytes; what a release before did not record is null.
FITS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    fold="int",
    examples="int",
    epochs="int",
    best_epoch="int",
    seconds="float",
    precision="text",
    device="text",
    compiled="bool",
    steps="int",
    examples_per_second="float",
    waiting="float",
    peak_memory="int",
    peak_device_memory="int",
    device_seconds="float",
)

# What the version was trained with: a row for each key of its configuration, such as training.batch_size.
CONFIGURATION = _columns(pipeline="text", run_id="text", version="text", name="text", value="text", number="float")

# --- written once per version (oof) and once per run (holdout) -----------------------------------

# `probability` is the one given to `predicted`, `probability_true` the one given to `label`. `source` is the example's
# original name; `correct` is null where a prediction cannot be right or wrong, `example_group` in a pipeline without.
PREDICTIONS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    split="text",
    fold="int",
    example_id="text",
    label="text",
    predicted="text",
    probability="float",
    probability_true="float",
    source="text",
    correct="bool",
    example_group="text",
)

# What else a workload predicts of an example: each number by its name. A classification has none.
OUTPUTS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    split="text",
    fold="int",
    example_id="text",
    name="text",
    value="float",
)

# --- read from the records of studies: they are the only truth ------------------------------------

# A trial of `leptonflow tune`. `folds` were trained; `value` is the mean of the metric over them; parameters: JSON.
TRIALS = _columns(
    pipeline="text",
    study="text",
    trial="int",
    version="text",
    state="text",
    metric="text",
    value="float",
    std="float",
    folds="int",
    parameters="text",
    sentence="text",
    snapshot="text",
    started_at="time",
    finished_at="time",
    seconds="float",
)

# --- written once per run, under <run_id> --------------------------------------------------------

RUNS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    verdict="text",
    snapshot="text",
    started_at="time",
    finished_at="time",
    seconds="float",
    champion="text",
    champion_before="text",
    attempt="int",
    train="int",
    holdout="int",
    sentence="text",
)

VERDICTS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    number="int",
    rule="text",
    metric="text",
    value="float",
    bound="float",
    passed="bool",
    sentence="text",
    slice="text",
    low="float",
    high="float",
    confidence="float",
    n="int",
    method="text",
)

# The candidate's. `split` is cv (mean and sample deviation over the folds) or holdout, `label` the cat of recall[cat].
METRICS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    split="text",
    metric="text",
    label="text",
    value="float",
    std="float",
    champion="text",
    champion_value="float",
)

STAGES = _columns(pipeline="text", run_id="text", version="text", stage="text", seconds="float")

# --- read from the commit logs: they are the only truth ------------------------------------------

SNAPSHOTS = _columns(
    pipeline="text",
    number="int",
    snapshot="text",
    batch="text",
    kind="text",
    arrived="int",
    accepted="int",
    quarantined="int",
    known="int",
    ignored="int",
    examples="int",
    who="text",
    why="text",
    at="time",
)

# What relabelled and retracted records changed, example by example. A null label: it left the dataset.
CORRECTIONS = _columns(
    pipeline="text",
    number="int",
    kind="text",
    example_id="text",
    old_label="text",
    label="text",
    batch="text",
    source="text",
    who="text",
    why="text",
    at="time",
)

PROMOTIONS = _columns(
    pipeline="text",
    number="int",
    version="text",
    previous="text",
    run_id="text",
    kind="text",
    who="text",
    reason="text",
    at="time",
    manifest_sha256="text",
    snapshot="text",
    snapshot_number="int",
    against="int",
)

# Batches that a person set aside: the records are the table's only source.
DISCARDS = _columns(pipeline="text", batch="text", reason="text", who="text", at="time")

# Runs that wait for approval, or did: the records are the table's only source. A null outcome: none is recorded yet.
APPROVALS = _columns(
    pipeline="text",
    run_id="text",
    version="text",
    outcome="text",
    who="text",
    reason="text",
    requested_at="time",
    expires_at="time",
    decided_at="time",
    sentence="text",
)

# --- what was served, under served/ ---------------------------------------------------------------

# A prediction. `metadata` and `input_statistics` are JSON; `features` are those of the model's penultimate layer,
# `inputs` the example as a part holds it, where the pipeline asks for it. What the server does not know is null.
SERVED = _columns(
    pipeline="text",
    request_id="text",
    at="time",
    version="text",
    predicted="text",
    probability="float",
    outputs="floats",
    metadata="text",
    input_statistics="text",
    features="floats",
    inputs="bytes",
    seconds="float",
    runtime="text",
    source="text",
)

# A label that came later, with what was predicted. The newest of a request counts; the earlier ones stay.
LABELS = _columns(
    pipeline="text",
    request_id="text",
    label="text",
    who="text",
    at="time",
    version="text",
    predicted="text",
    probability="float",
    outputs="floats",
    metadata="text",
    served_at="time",
)

# A test of a look for drift, from the records under monitoring/. `name` is a column of metadata or of the inputs, `of`
# the name or class that the values are of.
DRIFT = _columns(
    pipeline="text",
    number="int",
    version="text",
    verdict="text",
    what="text",
    name="text",
    method="text",
    effect="float",
    least="float",
    p_value="float",
    n="int",
    m="int",
    drifted="bool",
    sentence="text",
    of="text",
    reference_value="float",
    served_value="float",
    reference_spread="float",
    served_spread="float",
    triggers="bool",
    at="time",
)

COLUMNS: dict[str, dict[str, str]] = {
    "batches": BATCHES,
    "validations": VALIDATIONS,
    "quarantine": QUARANTINE,
    "snapshots": SNAPSHOTS,
    "corrections": CORRECTIONS,
    "runs": RUNS,
    "folds": FOLDS,
    "epochs": EPOCHS,
    "fits": FITS,
    "predictions": PREDICTIONS,
    "outputs": OUTPUTS,
    "verdicts": VERDICTS,
    "metrics": METRICS,
    "stages": STAGES,
    "configuration": CONFIGURATION,
    "models": MODELS,
    "promotions": PROMOTIONS,
    "approvals": APPROVALS,
    "discards": DISCARDS,
    "trials": TRIALS,
    "served": SERVED,
    "shadow": SERVED,
    "labels": LABELS,
    "drift": DRIFT,
}
