"""A look for drift in what is served: the newest predictions of the champion against its reference, and its record.

The tests are `drift_tests`, what they are held against is `references`, and when a record asks for a retraining is
`drift_records`. Nothing here starts one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from leptonflow.core import clock, store_keys
from leptonflow.core.hashing import canonical
from leptonflow.evaluation import champion_predictions
from leptonflow.monitoring import drift_records, drift_tests, live_quality, references, served_log
from leptonflow.monitoring.drift_tests import Observed
from leptonflow.reports import drift_page
from leptonflow.storage.objects import adopt, location
from leptonflow.storage.store import Store
from leptonflow.workloads import catalog
from leptonflow.workloads.predictions import matrix
from schemas.config import Pipeline
from schemas.drift import DriftRecord, DriftTest
from schemas.served import date_of
from schemas.serving import Monitor
from schemas.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_000  # predictions in a look, where nobody says how many
COLUMNS = (
    "request_id", "at", "version", "predicted", "probability", "outputs", "metadata", "features", "input_statistics",
)  # fmt: skip
SEED = 20261128
TOO_FEW = "too few new predictions since the last look"


def examine(store: Store, config: Pipeline, rows: int = ROWS, may_ask: bool = False) -> DriftRecord:
    """Look at the newest `rows` predictions of the champion; what was found is not recorded yet.

    may_ask: whether a drift may ask for a retraining. Raises NotFound without a champion, and what `references.of`
    raises.
    """
    champion = champion_predictions.current(store, config.name)
    since = _milliseconds(datetime.fromisoformat(champion.since))
    served = _served(store, config.name, champion.version, rows, since)
    reference, held_out = references.of(store, config, champion)
    observed = _observed(served, config)
    enough = len(served) >= drift_tests.FEWEST and held_out >= drift_tests.FEWEST
    tests = drift_tests.compare(reference, observed, SEED) if enough else ()
    absent = drift_tests.absent(reference, observed) if enough else []
    times = served["at"].to_pylist()
    found = DriftRecord(
        pipeline=config.name, number=0, at=clock.now(), version=champion.version, served=len(served),
        verdict="drift" if any(test.drifted for test in tests) else "none" if enough else "too-few",
        first=min(times).isoformat() if times else None, last=max(times).isoformat() if times else None,
        reference=held_out, tests=tests, triggers=False,
        quality=tuple(live_quality.measure(store, config, champion.version)),
        sentence=_sentence(len(served), held_out, tests, enough) + _not_compared(absent) + _ahead(store, config.name),
    )  # fmt: skip
    return _numbered(store, found.model_copy(update={"triggers": may_ask}))


def due(store: Store, config: Pipeline) -> DriftRecord | str:
    """A look as the YAML's `serving.monitor` says; a sentence where too few predictions came since the last one.

    Where the last one, by hand, found a drift that nothing has asked about, it looks again, so as to ask.
    """
    wanted = config.serving.monitor or Monitor()
    if unseen(store, config.name, wanted.after) < wanted.after and not (wanted.retrain and _unasked(store, config)):
        return TOO_FEW + _ahead(store, config.name)
    return examine(store, config, wanted.rows, wanted.retrain)


def _unasked(store: Store, config: Pipeline) -> bool:
    """Whether the newest record found a drift of the present champion for which no retraining was asked."""
    before = drift_records.last(store, config.name)
    if before is None or not drift_records.asks(before, before):
        return False
    return before.version == champion_predictions.current(store, config.name).version


def _served(store: Store, pipeline: str, version: str, most: int, since: int) -> pa.Table:
    """The newest predictions of the version, `most` of them, the newest last."""
    import pyarrow as pa

    from schemas.tables import schema

    none = schema("served").empty_table().select(list(COLUMNS))
    found = served_log.newest(store, pipeline, COLUMNS, most, since, version)
    return pa.concat_tables([none, *found]).sort_by("request_id")[-most:]


def _observed(served: pa.Table, config: Pipeline) -> Observed:
    workload = catalog.load(config.workload)
    features, confidence = served["features"].drop_null(), served["probability"].drop_null().to_numpy()
    classes = workload.target.classes
    outputs = matrix(served["outputs"]) if len(served) else None
    return Observed(
        metadata=references.columns(served["metadata"], workload.carriers),
        inputs=references.columns(served["input_statistics"]),
        predicted=served["predicted"].to_pylist() if classes else (),
        values=outputs[:, 0] if outputs is not None and not classes else None,
        outputs=outputs if classes else None,
        confidence=confidence if len(confidence) else None,
        features=matrix(features) if len(features) else None,
    )


def _sentence(served: int, held_out: int, tests: Sequence[DriftTest], enough: bool) -> str:
    of = f"{counted(served, 'prediction')} against {counted(held_out, 'example')} of the holdout"
    if not enough:
        return f"too few to tell: {of}; at least {drift_tests.FEWEST} of each are needed"
    drifted = [test.key for test in tests if test.drifted]
    if not drifted:
        return f"no drift: {of}, {counted(len(tests), 'test')}"
    return f"drift of {', '.join(drifted)}: {of}, {counted(len(tests), 'test')}"


def _not_compared(absent: Sequence[str]) -> str:
    if not absent:
        return ""
    named = ", ".join(f"inputs.{name}" for name in absent)
    return f"; {named} not compared: fewer than {drift_tests.FEWEST} of these predictions were logged with it"


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _ahead(store: Store, pipeline: str) -> str:
    """That predictions are left out which a wrong clock dated; nothing where there are none."""
    last = served_log.last(store, pipeline)
    if last is None or last <= served_log.latest():
        return ""
    told = f"; predictions dated up to {date_of(last)} are left out"
    return f"{told}: the clock of a server, or of this machine, is wrong"


def record(store: Store, found: DriftRecord) -> DriftRecord:
    """Record a look, and write its page. Under another number than `found` has, if another look was recorded first."""
    # A call whose reply was lost, or that was made again, finds its own record.
    while adopt(store, store_keys.drift_record_key(found.pipeline, found.number), canonical(found)) != canonical(found):
        found = _numbered(store, found)
    adopt(store, store_keys.drift_page_key(found.pipeline, found.number), drift_page.render(found))
    return found


def _numbered(store: Store, found: DriftRecord) -> DriftRecord:
    """With the next number, and whether it asks for a retraining after the records before it."""
    before = drift_records.last(store, found.pipeline)
    return found.model_copy(update={
        "number": before.number + 1 if before else 1,
        "asked": tuple(sorted(drift_records.asked(found, before))),
        "triggers": found.triggers and drift_records.asks(found, before),
    })  # fmt: skip


def unseen(store: Store, pipeline: str, most: int) -> int:
    """How many predictions came since the last one of the newest record (all of them without one); `most` at most.

    Where that record is of none, because another version answers (`serve --pin`): since that look.
    """
    before = drift_records.last(store, pipeline)
    since = 0
    if before is not None:
        looked = datetime.fromisoformat(before.at)
        last = datetime.fromisoformat(before.last) if before.last else looked
        since = _milliseconds(min(last, looked + served_log.AHEAD)) + 1
    return min(most, sum(len(table) for table in served_log.newest(store, pipeline, ["request_id"], most, since)))


def page(store: Store, found: DriftRecord) -> str:
    """Where the page of a record lies: a path on a folder, else a key of the store."""
    key = store_keys.drift_page_key(found.pipeline, found.number)
    return location(store, key)
