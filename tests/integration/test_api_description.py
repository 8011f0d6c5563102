"""What /openapi.json says is so: generated requests to a real server, valid ones and others, for every route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans

from leptonflow.storage.memory_store import MemoryStore
from serving.app import Options, create_app
from tests import served_champions
from tests.served_champions import NAME, until

HOW: dict[str, Any] = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    """The document of a server that runs, the pipeline's name in its paths."""
    import schemathesis  # a second, which every process that collects the tests would spend

    store = MemoryStore("memory://described")
    served_champions.promote(store, "one", served_champions.model(1))
    app = create_app(store, [served_champions.config(seconds=60)], Options(poll=0.05))
    with served_champions.listening(app) as port:
        until(lambda: app.state.services[NAME].live is not None)
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


def checked(described: Any, examples: int) -> int:
    """Hold so many requests for each route against the description; how many routes there are."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    every = (
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    )
    operations = [each.ok() for each in described.get_all_operations()]
    for operation in operations:

        @settings(max_examples=examples, **HOW)
        @given(case=operation.as_strategy(), known=booleans())
        def holds(case: Any, known: bool) -> None:
            if known and "pipeline" in (case.path_parameters or {}):
                case.path_parameters["pipeline"] = NAME
            case.call_and_validate(checks=every)

        holds()
    return len(operations)


def test_the_server_does_what_its_description_says(described: Any) -> None:
    assert checked(described, 5) >= 16


@pytest.mark.slow
def test_the_server_does_what_its_description_says_at_length(described: Any) -> None:
    checked(described, 200)
