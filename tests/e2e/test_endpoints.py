"""Batches of every endpoint through the OpenAI SDK, in both modes of a route; and the retry of what failed."""

import json
from typing import Any

import pytest
from nightshift.routes import form
from nightshift.routes import store as routes
from nightshift.routes.endpoint import ENDPOINTS, EndpointPath
from openai.types import Batch, Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from local.settings import MODEL, SECRET
from tests.e2e.conftest import Local, batch_file

BATCH_MODEL = "every-endpoint"
PROMPTS: dict[EndpointPath, Any] = {
    "/v1/chat/completions": [{"role": "user", "content": "Good night. And more."}],
    "/v1/responses": [{"role": "user", "content": [{"type": "input_text", "text": "Good night. And more."}]}],
    "/v1/embeddings": ["Good night.", "Sleep well."],
    "/v1/completions": ["Good night. And more.", "Sleep well."],
    "/v1/moderations": "Good night.",
}
# The simulator knows few of the SDK's categories of moderation.
TYPES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/responses": Response,
    "/v1/embeddings": CreateEmbeddingResponse,
    "/v1/completions": Completion,
}


def create(local: Local, endpoint: EndpointPath, model: str, count: int = 20) -> Batch:
    body = {"model": model, ENDPOINTS[endpoint].prompt: PROMPTS[endpoint]}
    lines = (
        json.dumps({"custom_id": str(number), "method": "POST", "url": endpoint, "body": body})
        for number in range(count)
    )
    file = local.client.files.create(file=("input.jsonl", "\n".join(lines).encode()), purpose="batch")
    return local.client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


@pytest.fixture
def batch_mode(local: Local, operator: None) -> None:
    entry = {
        "model": BATCH_MODEL,
        "endpoints": list(ENDPOINTS),
        "provider": "simulator",
        "base_url": local.description["upstream_url"],
        "upstream_model": "simulated-model",
        "mode": "batch",
        "sku": {"id": "half"},
        "api_key_secret": SECRET,
    }
    routes.apply([form.parse(entry)])


@pytest.mark.usefixtures("batch_mode")
def test_every_endpoint_is_answered_in_both_modes(local: Local) -> None:
    created = [create(local, endpoint, model) for endpoint in ENDPOINTS for model in (MODEL, BATCH_MODEL)]
    tokens: dict[tuple[str, str | None], int] = {}
    for begun in created:
        batch = local.ended(begun)
        assert batch.status == "completed", batch
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 20
        lines = local.lines(batch.output_file_id)
        assert [line["custom_id"] for line in lines] == [str(number) for number in range(20)]
        bodies = [line["response"]["body"] for line in lines]
        assert {body["model"] for body in bodies} == {batch.model}
        if kind := TYPES.get(batch.endpoint):
            kind.model_validate(bodies[0])
        assert batch.usage is not None
        tokens[batch.endpoint, batch.model] = batch.usage.total_tokens
    for endpoint in ENDPOINTS:
        assert tokens[endpoint, MODEL] == tokens[endpoint, BATCH_MODEL]
        assert (tokens[endpoint, MODEL] > 0) == (endpoint != "/v1/moderations")


def test_what_failed_is_retried(local: Local) -> None:
    local.upstream.set(error_rate={"400": 0.2, "422": 0.1})
    first = local.ended(local.create(batch_file(300), metadata={"team": "search"}))
    failed = [line["custom_id"] for line in local.lines(first.error_file_id)]
    assert 20 < len(failed) < 200
    local.upstream.reset()
    path, key = f"/batches/{first.id}/retry", {"idempotency_key": first.id}
    second, same = (local.client.post(path, cast_to=Batch, body=key) for _ in range(2))
    assert second.id == same.id
    assert second.metadata == {"team": "search", "retry_of": first.id}
    ended = local.ended(second)
    assert ended.to_dict()["retry_of"] == first.id
    assert [line["custom_id"] for line in local.lines(ended.output_file_id)] == failed
    assert ended.error_file_id is None
