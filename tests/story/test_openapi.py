"""Whatever the contract allows, and whatever it does not: no answer is a 5xx, and each is what the contract says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from servers import served

MAX_QUERY_BYTES = 60_000
"""A longer one is no HTTP request to the server, and never reaches a route."""
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def contract(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The OpenAPI document of a running service of its own."""
    with served(model_dir, tmp_path_factory.mktemp("log") / "events.db", 1) as (url, _):
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_route_keeps_its_contract(contract: schemathesis.BaseSchema, mode: GenerationMode) -> None:
    n_asked = 0
    for found in contract.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @settings(max_examples=20, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case: schemathesis.Case[Any]) -> None:
            assume(len(urlencode(case.query or {}, doseq=True)) < MAX_QUERY_BYTES)
            case.call_and_validate(checks=CHECKS)

        try:
            keeps()
            n_asked += 1
        except Unsatisfiable:  # a route that takes nothing, or any text, cannot be asked wrongly
            assert mode is GenerationMode.NEGATIVE
    assert n_asked >= {GenerationMode.POSITIVE: 21, GenerationMode.NEGATIVE: 10}[mode]
