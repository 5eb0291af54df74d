"""The API answers as its OpenAPI document describes: schemathesis calls every operation, and chains of them."""

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

# The document must describe every answer. Cases that a schema cannot express are left out.
CONFIG = {
    "seed": 1,
    # Unknown query parameters and form fields are ignored, so none are made up.
    "generation": {"deterministic": True, "max-examples": 6, "allow-extra-parameters": False},
    # Without TRACE, which API Gateway does not support.
    "phases": {"coverage": {"unexpected-methods": ["OPTIONS", "PATCH"]}},
    "checks": {
        # A callback URL must be public, an id must exist, and the parts of an upload must have its size.
        "positive_data_acceptance": {"enabled": False},
        # A presigned file has no bytes before its PUT.
        "ensure_resource_availability": {"enabled": False},
    },
    "operations": [
        # A form has only strings: the true or 7 that its schema refuses is a string in the body.
        *(
            {"include-name": name, "checks": {"negative_data_rejection": {"enabled": False}}}
            for name in ("POST /files", "POST /uploads/{upload_id}/parts")
        ),
    ],
}

GOOD_FILES = [batch_file(1), batch_file(3)]
BAD_FILES = [b"", b"{", b"\xff\xfe", request_line("a", model="nobody-has-this").encode()]
schemathesis.openapi.media_type("application/jsonl", st.sampled_from(GOOD_FILES + BAD_FILES))

schema = schemathesis.openapi.from_path(DOCUMENT, config=schemathesis.Config.from_dict(CONFIG))


@pytest.fixture(scope="module")
def call(local_stack: Local) -> dict[str, Any]:
    """The address and the key of the stack."""
    headers = {"Authorization": f"Bearer {local_stack.description['api_key']}"}
    return {"base_url": local_stack.description["base_url"], "headers": headers}


def test_committed_document_is_served(local: Local) -> None:
    answer = httpx.get(f"{local.description['base_url']}/openapi.json", timeout=30)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(DOCUMENT.read_text())


def test_documentation_page_is_served(local: Local) -> None:
    answer = httpx.get(f"{local.description['base_url']}/docs", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]


@schema.parametrize()
@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_matches_the_document(case: Any, call: dict[str, Any]) -> None:
    case.call_and_validate(**call)


def test_call_chains_match_the_document(call: dict[str, Any]) -> None:
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
