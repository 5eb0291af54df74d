"""What the OpenAPI document says is what the API does: schemathesis tries every operation, and chains of them."""

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.generation.stateful import run_state_machine_as_test

from tests.e2e.conftest import Local, batch_file, request_line
from tools.openapi import DOCUMENT

# Every answer has to be one that the document describes. What a schema cannot say is not asked for.
CONFIG = {
    "seed": 1,
    "generation": {"deterministic": True, "max-examples": 6},
    # Not TRACE: API Gateway knows no such method.
    "phases": {"coverage": {"unexpected-methods": ["OPTIONS", "PATCH"]}},
    "checks": {
        # A callback URL has to be public, an id has to exist, the parts of an upload have to have its size.
        "positive_data_acceptance": {"enabled": False},
        # The bytes of a file that the caller puts itself are not there before that.
        "ensure_resource_availability": {"enabled": False},
    },
}

GOOD_FILES = [batch_file(1), batch_file(3)]
BAD_FILES = [b"", b"{", b"\xff\xfe", request_line("a", model="nobody-has-this").encode()]
schemathesis.openapi.media_type("application/jsonl", st.sampled_from(GOOD_FILES + BAD_FILES))

schema = schemathesis.openapi.from_path(DOCUMENT, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture(scope="module")
def call(local_stack: Local) -> dict[str, Any]:
    """How to reach the stack."""
    headers = {"Authorization": f"Bearer {local_stack.description['api_key']}"}
    return {"base_url": local_stack.description["base_url"], "headers": headers}


def test_the_document_is_served_as_it_is_committed(local: Local) -> None:
    answer = httpx.get(f"{local.description['base_url']}/openapi.json", timeout=30)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(DOCUMENT.read_text())


def test_the_documents_page_is_served(local: Local) -> None:
    answer = httpx.get(f"{local.description['base_url']}/docs", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "openapi.json" in answer.text


@schema.parametrize()
@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_described(case: Any, call: dict[str, Any]) -> None:
    case.call_and_validate(**call)


def test_chains_of_calls_are_answered_as_described(call: dict[str, Any]) -> None:
    machine = schema.as_state_machine()

    machine.get_call_kwargs = lambda *_: call  # type: ignore[method-assign]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=8,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
