"""Data contracts: a Great Expectations suite, as YAML, over the metadata of a batch.

The only importer of Great Expectations, and only in a child process (`python -m
leptonflow.data.validation.contracts`): its import takes seconds, which pass beside the landing and decoding.
What does not belong here: judging single examples, and what a failed expectation means for a batch.
"""

from __future__ import annotations

import difflib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from leptonflow.core import files, garbage_collection, hashing, late_imports
from leptonflow.core.child_processes import python_path
from leptonflow.core.code_digests import ROOT
from leptonflow.workloads import catalog
from schemas import yaml_text
from schemas.config import NO_LINES, Pipeline
from schemas.errors import ConfigurationError, LeptonflowError
from schemas.records import Expectation
from schemas.yaml_text import Yaml

if TYPE_CHECKING:
    import pyarrow as pa

HEADER = struct.Struct(">QQ")  # lengths of the suite's JSON and of the Arrow stream that follow
SHOWN = 5  # unexpected values that a result names

Wrong = Callable[..., ConfigurationError]
Suite = dict[str, Any]  # {"expectations": [{"type": ..., "kwargs": {...}}, ...]}


def read_contract(config: Pipeline) -> Suite:
    """The pipeline's contract: the file beside its YAML, else the workload's own under schemas/.

    Raises ConfigurationError with the key's path. Great Expectations is not imported.
    """
    if config.contract is None:
        path = ROOT / "schemas" / catalog.load(config.workload).contract
        where = str(path)
    else:
        where = str(config.folder / config.contract)
    try:
        if config.contract is not None:
            path = files.below(config.folder, config.contract)
        data = files.read(path, files.TEXT)
    except OSError as error:
        raise ConfigurationError(
            f"the contract {where} cannot be read",
            expected="a YAML file in the folder of the pipeline's YAML",
            received=error.strerror or str(error),
            hint="Fix the file, or the key contract",
        ) from None
    document = _document(data, where)
    return parse(document.value, where, document)


@lru_cache(maxsize=8)
def _document(data: bytes, where: str) -> Yaml:
    """A batch asks for its contract several times; only reading the file shows that it is still the same."""
    return yaml_text.load(data, f"the contract {where}")


def parse(document: object, where: str, lines: Yaml = NO_LINES) -> Suite:
    """A suite from a parsed YAML document. Raises ConfigurationError with the key's path and line."""
    wrong = partial(_wrong, where, lines)
    if not isinstance(document, dict):
        raise wrong("(the whole file)", "a mapping with the key expectations", document)
    _only(document, ("expectations",), wrong, "")
    items = document.get("expectations")
    if not isinstance(items, list) or not items:
        raise wrong("expectations", "a list with at least one expectation", items)
    expectations = []
    for number, item in enumerate(items):
        key = f"expectations.{number}"
        if not isinstance(item, dict):
            raise wrong(key, "a mapping with type and kwargs", item)
        _only(item, ("type", "kwargs"), wrong, f"{key}.")
        kind, kwargs = item.get("type"), item.get("kwargs", {})
        if kind not in known_types():
            near = difflib.get_close_matches(str(kind), known_types(), n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else "See https://greatexpectations.io/expectations"
            raise wrong(f"{key}.type", "a core expectation of Great Expectations", kind, hint)
        if not isinstance(kwargs, dict) or not all(isinstance(k, str) for k in kwargs):
            raise wrong(f"{key}.kwargs", "a mapping of the expectation's arguments", kwargs)
        expectations.append({"type": kind, "kwargs": kwargs})
    return {"expectations": expectations}


@lru_cache(maxsize=1)
def known_types() -> tuple[str, ...]:
    """The names of Great Expectations's own expectations: its files are listed, none is imported."""
    spec = util.find_spec("great_expectations")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise LeptonflowError("Great Expectations is not installed", hint="pip install great-expectations")
    return tuple(sorted(p.stem for p in (Path(folders[0]) / "expectations" / "core").glob("expect_*.py")))


def digest(config: Pipeline) -> str:
    """The contract's digest, 64 hex digits: the suite, quarantine.limit, classes, group, built-in checks."""
    checks = catalog.load(config.workload).checks_version
    group = () if config.group is None else (config.group,)
    return hashing.digest("contract", read_contract(config), config.quarantine.limit, config.classes, checks, *group)


def _only(found: Mapping[Any, Any], valid: Sequence[str], wrong: Wrong, prefix: str) -> None:
    for key in found:
        if key not in valid:
            near = difflib.get_close_matches(str(key), valid, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Remove the key or fix its name"
            raise wrong(f"{prefix}{key}", f"one of {', '.join(valid)}", key, hint)


def _wrong(
    where: str, lines: Yaml, key: str, expected: str, received: object, hint: str | None = None
) -> ConfigurationError:
    shown = repr(received)
    return ConfigurationError(
        f"the contract {where}: {key} is not valid{lines.line(key)}",
        expected=expected,
        received=shown if len(shown) < 120 else shown[:117] + "...",
        hint=hint or f"Fix {key}",
    )


# --- this side of the child process --------------------------------------------------------------


class Validator:
    """A child process with Great Expectations in it. Start it early: it imports while others work.

    It serves one batch after another, and ends with `close`, or by itself when this process ends.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Validator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the child, where there is none. Returns at once."""
        if self._child is not None:
            return
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "leptonflow.data.validation.contracts",
            ],  # -P: no module is taken from the user's folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": python_path(), "GX_ANALYTICS_ENABLED": "false", "TQDM_DISABLE": "1"},
        )

    def validate(self, facts: pa.Table, suite: Suite, sources: Sequence[str] = ()) -> tuple[Expectation, ...]:
        """The result of each expectation over the facts, one row per example, in the suite's order.

        sources: what each example is called, so that what was observed names one that breaks the expectation.

        Raises ConfigurationError where an expectation does not fit the facts, LeptonflowError where
        the child ended.
        """
        self.start()
        assert self._child is not None and self._child.stdin is not None and self._child.stdout is not None
        contract, table = json.dumps(suite).encode(), _stream(facts)
        try:
            self._child.stdin.write(HEADER.pack(len(contract), len(table)))
            self._child.stdin.write(contract)
            self._child.stdin.write(table)
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise ConfigurationError(**answer["error"])
        for row in answer["expectations"]:
            at = row.pop("first")
            if sources and at is not None and not row["success"]:
                row["observed"] = f"{row['observed']}; the first is {sources[at]}"
        return tuple(Expectation.model_validate(row) for row in answer["expectations"])

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                try:
                    if stream is not None:
                        stream.close()
                except BrokenPipeError:
                    pass  # bytes for a child that is gone
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _ended(self) -> LeptonflowError:
        assert self._child is not None and self._errors is not None
        status = self._child.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        self.close()
        return LeptonflowError(
            "the process that runs Great Expectations ended",
            expected="a result for each expectation",
            received=lines[-1].strip() if lines else f"exit status {status}",
            hint="`leptonflow doctor` checks its packages",
        )


def _stream(facts: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, facts.schema) as writer:
        writer.write_table(facts)
    return bytes(sink.getvalue().to_pybytes())


# --- the child process ---------------------------------------------------------------------------


def serve() -> None:
    """Answer one suite and table after another, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's, and it ends us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not part of the reply
    with garbage_collection.paused(freeze=True):
        _import()
    questions = sys.stdin.buffer
    while header := questions.read(HEADER.size):
        contract, table = HEADER.unpack(header)
        answer = _answer(json.loads(questions.read(contract)), questions.read(table))
        answers.write(json.dumps(answer, default=str).encode() + b"\n")
        answers.flush()


def _import() -> Any:
    import logging

    logging.disable(logging.WARNING)
    late_imports.late("altair", "scipy.stats")  # a third of the import, for the few expectations about distributions
    import great_expectations

    return great_expectations


def _answer(suite: Suite, table: bytes) -> dict[str, Any]:
    import pyarrow as pa

    facts = pa.ipc.open_stream(table).read_all()
    missing = [
        (number, name)
        for number, item in enumerate(suite["expectations"])
        for name in _columns(item["kwargs"])
        if name not in facts.column_names and item["type"] != "expect_column_to_exist"
    ]
    if missing:
        number, name = missing[0]
        return _refusal(number, f"one of {', '.join(facts.column_names)}", f"the column {name}")
    return _run(suite, facts)


def _columns(kwargs: Mapping[str, Any]) -> list[Any]:
    one = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*one, *kwargs.get("column_list", [])]


def _refusal(number: int, expected: str, received: str) -> dict[str, Any]:
    return {
        "error": {
            "message": f"the contract's expectations.{number} does not fit the metadata of a batch",
            "expected": expected,
            "received": received,
            "hint": f"Fix expectations.{number} in the contract",
        }
    }


def _run(suite: Suite, facts: pa.Table) -> dict[str, Any]:
    gx = _import()
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    # A context of its own for each batch: a context remembers what it validated.
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    expectations = gx.ExpectationSuite(name="contract")
    for number, item in enumerate(suite["expectations"]):
        try:
            expectations.add_expectation_configuration(
                ExpectationConfiguration(type=item["type"], kwargs=item["kwargs"], meta={"number": number})
            )
        except Exception as error:  # noqa: BLE001 - of its own pydantic, whatever its class: the arguments are wrong
            return _refusal(number, f"arguments of {item['type']}", " ".join(str(error).split()))
    asset = context.data_sources.add_pandas("facts").add_dataframe_asset("batch")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": facts.to_pandas()})
    results = batch.validate(expectations, result_format={"result_format": "BASIC", "partial_unexpected_count": SHOWN})
    rows: list[dict[str, Any]] = [{}] * len(suite["expectations"])
    for result in results.results:
        number = result.expectation_config.meta["number"]
        failure = _failure(result.exception_info)
        if failure is not None:
            return _refusal(number, "an expectation that can be computed", failure)
        row = _row(suite["expectations"][number], bool(result.success), result.result)
        rows[number] = {**row, "first": _first(facts, row["column"], result.result)}
    return {"expectations": rows}


def _failure(info: Mapping[str, Any]) -> str | None:
    """The message of an exception inside an expectation: flat, or one for each of its metrics."""
    nested = [value for value in info.values() if isinstance(value, Mapping)]
    for one in (info, *nested):
        if one.get("raised_exception"):
            return " ".join(str(one.get("exception_message")).split())
    return None


def _row(item: Mapping[str, Any], success: bool, result: Mapping[str, Any]) -> dict[str, Any]:
    unexpected = result.get("unexpected_count")
    observed = result.get("observed_value")
    if observed is None and unexpected is not None and "element_count" in result:
        values = ", ".join(str(v) for v in result.get("partial_unexpected_list") or ())
        observed = f"{unexpected} of {result['element_count']} unexpected" + (f": {values}" if values else "")
    return {
        "expectation": item["type"],
        "column": item["kwargs"].get("column"),
        "kwargs": item["kwargs"],
        "success": success,
        "observed": None if observed is None else str(observed),
        "unexpected": unexpected,
    }


def _first(facts: pa.Table, column: str | None, result: Mapping[str, Any]) -> int | None:
    """The number of the first example whose value is unexpected; None where that is not told by its value."""
    values = result.get("partial_unexpected_list") or ()
    if not values or column not in facts.column_names:
        return None
    cells = facts.column(column).to_pylist()
    return cells.index(values[0]) if values[0] in cells else None


if __name__ == "__main__":
    serve()
