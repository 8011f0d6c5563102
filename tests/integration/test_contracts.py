"""Data contracts with the real Great Expectations in its child process; reading them without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from leptonflow.data.dataset import admission
from leptonflow.data.validation import contracts
from schemas.config import Pipeline
from schemas.errors import ConfigurationError, LeptonflowError

ROOT = Path(__file__).resolve().parents[2]


def pipeline(folder: Path = Path("."), **keys: Any) -> Pipeline:
    gate = ({"rule": "at_least", "metric": "accuracy", "value": 0.5},)
    return Pipeline.model_validate(
        {"name": "p", "workload": "image_classification", "input": (28, 28, 1), "gate": gate, "folder": folder, **keys}
    )


def facts(count: int = 6, **columns: Any) -> pa.Table:
    common = {
        "label": [("cat", "dog")[i % 2] for i in range(count)], "width": [28] * count, "height": [28] * count,
        "channels": [1] * count, "format": ["PNG"] * count, "bytes": [100] * count,
        "brightness": [128.5] * count, "contrast": [20.0] * count,
    }  # fmt: skip
    return pa.table({**common, **columns})


def suite(*items: tuple[str, dict[str, Any]]) -> contracts.Suite:
    return {"expectations": [{"type": kind, "kwargs": kwargs} for kind, kwargs in items]}


@pytest.fixture
def validator(admission_tools: admission.Tools) -> contracts.Validator:
    return admission_tools.validator


def test_good_facts_meet_every_expectation_of_the_shipped_contract(validator: contracts.Validator) -> None:
    shipped = contracts.read_contract(pipeline())
    results = validator.validate(facts(), shipped)
    assert [r.expectation for r in results] == [e["type"] for e in shipped["expectations"]]
    assert all(r.success for r in results)
    assert results[0].observed == "6"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("label", ["cat", None, "dog", "cat", "dog", "cat"]),
        ("width", [28, 1, 28, 28, 28, 28]),
        ("height", [28, 200000, 28, 28, 28, 28]),
        ("channels", [1, 3, 4, 1, 1, 1]),
        ("bytes", [100, 0, 100, 100, 100, 100]),
        ("brightness", [0.0, 255.0, 255.5, 1.0, 1.0, 1.0]),
        ("contrast", [0.0, -1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_each_expectation_of_the_shipped_contract_can_fail(
    column: str, values: list[Any], validator: contracts.Validator
) -> None:
    named: dict[str, Any] = {column: values}
    results = validator.validate(facts(**named), contracts.read_contract(pipeline()))
    failed = [r for r in results if not r.success]
    assert [(r.column, r.unexpected) for r in failed] == [(column, 1)]
    assert (failed[0].observed or "").startswith("1 of 6 unexpected")


def test_what_was_observed_names_an_example(validator: contracts.Validator) -> None:
    wide = suite(("expect_column_values_to_be_between", {"column": "width", "min_value": 8}),
                 ("expect_column_mean_to_be_between", {"column": "brightness", "min_value": 200}))  # fmt: skip
    results = validator.validate(facts(width=[28, 28, 5, 28, 5, 28]), wide, [f"{n}.png" for n in range(6)])
    assert [r.observed for r in results] == ["2 of 6 unexpected: 5, 5; the first is 2.png", "128.5"]


def test_one_child_serves_several_batches_each_on_its_own(validator: contracts.Validator) -> None:
    mean = suite(("expect_column_mean_to_be_between", {"column": "brightness", "min_value": 100}))
    dark = validator.validate(facts(brightness=[10.0] * 6), mean)
    light = validator.validate(facts(), mean)
    assert (dark[0].success, dark[0].observed, light[0].success) == (False, "10.0", True)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (("expect_column_values_to_not_be_null", {"column": "widht"}), "one of label, width.*the column widht"),
        (("expect_column_values_to_be_between", {"column": "width", "min": 1}), "min.*extra fields"),
        (("expect_column_values_to_be_between", {"column": "label", "min_value": 1}), "same type"),
    ],
)
def test_an_expectation_that_does_not_fit_the_facts_is_a_configuration_error(
    item: tuple[str, dict[str, Any]], told: str, validator: contracts.Validator
) -> None:
    fine = ("expect_column_values_to_not_be_null", {"column": "label"})
    with pytest.raises(ConfigurationError, match=rf"expectations\.1 does not fit.*{told}"):
        validator.validate(facts(), suite(fine, item))
    assert validator.validate(facts(), suite(fine))[0].success  # and the child goes on


def test_a_child_that_is_killed_is_an_error_and_the_next_batch_has_a_new_one() -> None:
    with contracts.Validator() as validator:
        assert validator._child is not None
        os.kill(validator._child.pid, signal.SIGKILL)
        with pytest.raises(LeptonflowError, match="Great Expectations ended"):
            validator.validate(facts(), contracts.read_contract(pipeline()))
        assert validator.validate(facts(), contracts.read_contract(pipeline()))
        # What a distribution needs is imported for an expectation about one, not for every batch.
        assert validator._child is not None
        maps = Path(f"/proc/{validator._child.pid}/maps")
        assert "/scipy/stats/" not in maps.read_text()
        half = {"values": ["cat", "dog"], "weights": [0.5, 0.5]}
        kinds = {"column": "label", "partition_object": half, "threshold": 0.1}
        (told,) = validator.validate(facts(), suite(("expect_column_kl_divergence_to_be_less_than", kinds)))
        assert told.success and told.observed == "0.0" and "/scipy/stats/" in maps.read_text()


def test_the_child_ends_with_a_parent_that_was_killed_and_prints_nothing() -> None:
    script = (
        "import sys; from leptonflow.data.validation.contracts import Validator\n"
        "v = Validator(); v.start(); print(v._child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    assert parent.communicate() == ("", "")
    deadline = time.monotonic() + 60
    stat = Path(f"/proc/{child}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)


# --- reading, without Great Expectations ---------------------------------------------------------


def written(folder: Path, text: str) -> Pipeline:
    (folder / "c.yaml").write_text(text)
    return pipeline(folder, contract="c.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "a mapping with the key expectations"),
        ("expectations: []", "expectations is not valid"),
        ("expectation: []", "expectation is not valid.*Did you mean expectations"),
        ("expectations: [{type: expect_column_to_exist, kwarg: {}}]", r"expectations\.0\.kwarg .*Did you mean kwargs"),
        (
            "expectations: [{type: expect_column_value_to_be_between}]",
            r"expectations\.0\.type .*Did you mean expect_column_values_to_be_between",
        ),
        ("expectations: [{type: expect_column_to_exist, kwargs: [a]}]", r"expectations\.0\.kwargs"),
        ("expectations: [{type: expect_column_to_exist, kwargs: {column: 010}}]", r"c\.yaml .*\(line 1\).*010"),
        ("expectations: [{type: expect_column_to_exist, kwargs: {}, kwargs: {}}]", "kwargs stands twice"),
        ("expectations: [", "cannot be read"),
    ],
)
def test_a_wrong_contract_is_a_configuration_error_with_the_keys_path(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=told):
        contracts.read_contract(written(tmp_path, text))


def test_a_contract_that_is_not_there_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml cannot be read"):
        contracts.read_contract(pipeline(tmp_path, contract="gone.yaml"))


def test_the_digest_covers_what_a_batch_is_judged_by_and_not_how_the_file_looks(tmp_path: Path) -> None:
    one = "expectations: [{type: expect_column_to_exist, kwargs: {column: label}}]"
    same = "# a comment\nexpectations:\n- kwargs: {column: label}\n  type: expect_column_to_exist\n"
    other = one.replace("label", "width")
    first = contracts.digest(written(tmp_path, one))
    assert len(first) == 64
    assert contracts.digest(written(tmp_path, same)) == first
    config = written(tmp_path, one)
    changed = [
        contracts.digest(config.model_copy(update={"quarantine": config.quarantine.model_copy(update={"limit": 0.5})})),
        contracts.digest(config.model_copy(update={"classes": ("cat", "dog")})),
        contracts.digest(written(tmp_path, other)),
        contracts.digest(pipeline()),
    ]
    assert len({first, *changed}) == 5


def test_reading_and_digesting_import_no_great_expectations() -> None:
    script = (
        "import sys; from leptonflow.data.validation import contracts\n"
        "from tests.integration.test_contracts import pipeline\n"
        "contracts.digest(pipeline()); print('great_expectations' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
