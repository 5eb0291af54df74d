"""Batches of every endpoint, against the simulator; and what is refused where no route offers an endpoint."""

import json
from typing import Any

import pytest
from nightshift.core import settings
from nightshift.routes import store as routes
from nightshift.routes.endpoint import ENDPOINTS, EndpointPath
from nightshift.routes.route import Sku

from tests.integration.simulator import Simulator
from tests.integration.support import MODEL, Caller, apply_route, input_lines, invoke, route, table_size

PROMPTS: dict[EndpointPath, Any] = {
    "/v1/chat/completions": [{"role": "user", "content": "Good night."}],
    "/v1/responses": "Good night.",
    "/v1/embeddings": ["Good night.", "Sleep well."],
    "/v1/completions": "Good night.",
    "/v1/moderations": "Good night.",
}
# Tokens of one line: read, written.
USAGE = {
    "/v1/chat/completions": (2, 2),
    "/v1/responses": (2, 2),
    "/v1/embeddings": (4, 0),
    "/v1/completions": (2, 2),
    "/v1/moderations": (0, 0),
}


def line(endpoint: EndpointPath, custom_id: str, **body: Any) -> str:
    request = {"model": MODEL, ENDPOINTS[endpoint].prompt: PROMPTS[endpoint], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": endpoint, "body": request})


@pytest.mark.parametrize("sync_seconds", ["20", "0"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_batch_of_each_endpoint_is_answered(
    alice: Caller, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, endpoint: EndpointPath, sync_seconds: str
) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", sync_seconds)
    apply_route(simulator.url, endpoints=tuple(ENDPOINTS))
    batch_id = alice.begin([line(endpoint, str(number)) for number in range(3)], endpoint=endpoint)
    alice.run_chunks(batch_id)
    batch = alice.finalize(batch_id)
    assert (batch["status"], batch["endpoint"]) == ("completed", endpoint)
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    read, written = USAGE[endpoint]
    assert batch["usage"] == {
        "input_tokens": 3 * read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 3 * written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 3 * (read + written),
    }
    bodies = [answer["response"]["body"] for answer in alice.lines(batch["output_file_id"])]
    assert [body["model"] for body in bodies] == [MODEL] * 3


def test_a_plan_of_another_endpoint_is_made_again(alice: Caller, simulator: Simulator) -> None:
    """The lines of a deleted plan are found by the batch's own endpoint."""
    from nightshift.core import aws

    apply_route(simulator.url, endpoints=("/v1/embeddings",))
    batch_id = alice.begin([line("/v1/embeddings", str(n)) for n in range(150)], endpoint="/v1/embeddings")
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=f"work/{batch_id}/plan.json")
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "in_progress"
    alice.run_chunks(batch_id)
    assert alice.finalize(batch_id)["request_counts"]["completed"] == 150


def test_an_endpoint_without_a_route_is_refused(alice: Caller) -> None:
    apply_route(endpoints=("/v1/chat/completions", "/v1/responses"))
    file_id = alice.upload([line("/v1/embeddings", "a")])
    reply = alice("POST", "/batches", json_body={"input_file_id": file_id, "endpoint": "/v1/embeddings"})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_value", "endpoint")
    assert reply.error["message"] == (
        "endpoint: no model is served at '/v1/embeddings' here. Supported values are: '/v1/chat/completions' and "
        "'/v1/responses'."
    )
    assert table_size("batches") == 0


def test_a_route_that_is_off_offers_no_endpoint(alice: Caller) -> None:
    apply_route(endpoints=("/v1/embeddings",), active=False)
    file_id = alice.upload([line("/v1/embeddings", "a")])
    reply = alice("POST", "/batches", json_body={"input_file_id": file_id, "endpoint": "/v1/embeddings"})
    assert (reply.status, reply.error["param"]) == (400, "endpoint")
    assert "Supported values are: none." in reply.error["message"]


def test_a_model_of_another_endpoint_says_which(alice: Caller) -> None:
    apply_route(endpoints=("/v1/embeddings",))
    reply = alice("POST", "/batches", json_body={"input_file_id": alice.upload(input_lines(1))})
    assert (reply.status, reply.error["code"]) == (400, "batch_model_not_supported")
    assert "in a batch of /v1/chat/completions, but in batches of /v1/embeddings." in reply.error["message"]


def test_models_show_their_endpoints(alice: Caller) -> None:
    apply_route(endpoints=("/v1/embeddings", "/v1/chat/completions"))
    shown = alice("GET", f"/models/{MODEL}").json
    assert shown["endpoints"] == ["/v1/chat/completions", "/v1/embeddings"]
    assert alice("GET", "/models").json["data"] == [shown]


def test_models_show_the_prices_that_a_batch_would_have(alice: Caller) -> None:
    priced = Sku("priced", input_per_million=0.5, output_per_million=2.0)
    best, fallback = route(sku=priced, mode="batch"), route(provider="fallback", priority=50)
    routes.apply([best, fallback])
    assert alice("GET", f"/models/{MODEL}").json["prices"] == {
        "mode": "batch",
        "input_per_million": 0.5,
        "output_per_million": 2.0,
    }
    routes.apply([best, route(provider="other", sku=priced)])
    assert alice("GET", f"/models/{MODEL}").json["prices"] is None, "it depends on the route"
