"""The record of a load check is held against its own digest: a changed one spares nobody the check."""

from __future__ import annotations

import pytest

from leptonflow.core.hashing import canonical
from leptonflow.evaluation import load_check
from leptonflow.runs import inventory
from schemas.records import InfraResult

KEY = "models/p/0123456789ab/infra/0123456789ab.json"
PASSED = InfraResult(
    version="0123456789ab", manifest_sha256="0" * 64, passed=True, largest_difference=0.0, tolerance=1e-5,
    examples=92, sentence="as in its package", seconds=1.25, latency_ms=9.48, package_bytes=90748, malformed=6,
)  # fmt: skip


def test_a_record_is_read_as_it_was_written_and_so_is_one_of_an_earlier_release() -> None:
    assert load_check.read(load_check.document(PASSED)) == PASSED
    assert load_check.read(canonical(PASSED)) == PASSED


@pytest.mark.parametrize(
    ("was", "now"), [(b"9.48", b"1.48"), (b'"examples":92', b'"examples":93'), (b"digest", b"digesu")]
)
def test_a_changed_record_is_no_pass_and_verify_names_it(was: bytes, now: bytes) -> None:
    whole = load_check.document(PASSED)
    changed = whole.replace(was, now)
    assert changed != whole
    with pytest.raises(ValueError):
        load_check.read(changed)
    assert inventory._json(KEY).problem(whole) is None
    assert inventory._json(KEY).problem(changed)
