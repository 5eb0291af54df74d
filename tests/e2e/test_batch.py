"""A batch from upload to download, as an unmodified OpenAI client sees it."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from nightshift.routes import store as routes
from nightshift.routes.route import Route, Sku
from openai import APIStatusError, BadRequestError, InternalServerError, NotFoundError, OpenAI

from tests.e2e.conftest import Local, Receiver, assert_every_line_once, batch_file, request_line, wait_for


def test_every_line_is_answered_in_order(local: Local) -> None:
    batch = local.create(batch_file(500), metadata={"team": "search"})

    assert batch.status == "validating"
    assert batch.model == "demo-model"
    batch = local.ended(batch)

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 500, "completed": 500, "failed": 0}
    assert batch.error_file_id is None
    assert batch.metadata == {"team": "search"}
    lines = local.lines(batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"request-{number}" for number in range(500)]
    assert all(line["response"]["body"]["model"] == "demo-model" for line in lines)
    assert lines[7]["response"]["body"]["choices"][0]["message"]["content"] == "Sentence 7."
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(line["response"]["body"]["usage"]["completion_tokens"] for line in lines)
    assert local.upstream.counters()["received_twice_or_more"] == 0


def test_output_file_has_its_own_name(local: Local) -> None:
    batch = local.ended(local.create(batch_file(3)))

    url = f"{local.description['base_url']}/files/{batch.output_file_id}/content"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {local.description['api_key']}"}, timeout=30)
    assert answer.status_code == 200
    assert f'filename="{batch.id}_output.jsonl"' in answer.headers["content-disposition"]
    assert answer.headers["content-type"] == "application/jsonl"


def test_callback_url_gets_a_signed_webhook(local: Local, receive: Callable[..., Receiver]) -> None:
    receiver = receive([500, 429])
    secret = local.client.post("/webhook/rotate", cast_to=httpx.Response).json()["secret"]

    batch = local.create(batch_file(3), callback_url=receiver.url)
    wait_for(lambda: len(receiver.received) == 3)

    client = OpenAI(api_key="unused", webhook_secret=secret)
    headers, body = receiver.received[-1]
    event: Any = client.webhooks.unwrap(body, headers)
    assert event.type == "batch.completed"
    assert event.data.id == batch.id
    assert json.loads(body)["data"]["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1


def test_refused_lines_go_to_the_error_file(local: Local) -> None:
    lines = [request_line("good"), request_line("bad", messages=[{"role": "user"}]), request_line("fine")]

    batch = local.ended(local.create("\n".join(lines).encode()))

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    assert [line["custom_id"] for line in local.lines(batch.output_file_id)] == ["good", "fine"]
    (failed,) = local.lines(batch.error_file_id)
    assert failed["custom_id"] == "bad"
    assert failed["response"]["status_code"] == 400
    assert failed["error"] is None


def refused(local: Local, content: bytes) -> APIStatusError:
    """The error of create for a file. Nothing may be recorded or started."""
    before = {batch.id for batch in local.client.batches.list()}
    client = local.client.with_options(max_retries=0)
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    with pytest.raises(APIStatusError) as refusal:
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert {batch.id for batch in local.client.batches.list()} == before
    return refusal.value


def details(error: APIStatusError) -> list[tuple[int, str, str | None]]:
    assert isinstance(error.body, dict)
    return [(entry["line"], entry["code"], entry["param"]) for entry in error.body["details"]]


def test_two_models_are_refused(local: Local) -> None:
    lines = [request_line("a"), request_line("b", model="other"), request_line("c"), request_line("d", model="third")]

    error = refused(local, "\n".join(lines).encode())

    assert isinstance(error, BadRequestError)
    assert (error.code, error.param) == ("batch_multiple_models", "input_file_id")
    assert details(error) == [(2, "model_mismatch", "body.model"), (4, "model_mismatch", "body.model")]


def test_every_invalid_line_is_listed(local: Local) -> None:
    lines = [request_line("a"), request_line("b"), request_line("c")[:-3], request_line("a"), request_line("e")]

    error = refused(local, "\n".join(lines).encode())

    assert isinstance(error, BadRequestError)
    assert (error.code, error.param) == ("batch_invalid_jsonl", "input_file_id")
    assert details(error) == [(3, "invalid_json_line", None), (4, "duplicate_custom_id", "custom_id")]


def test_model_without_a_route_is_refused(local: Local) -> None:
    error = refused(local, batch_file(2, model="nobody-has-this"))

    assert isinstance(error, BadRequestError)
    assert (error.code, error.param) == ("batch_model_not_supported", "input_file_id")


def test_model_without_active_sku_is_503(local: Local, operator: None) -> None:
    sku = Sku("sleeping", active=False)
    routes.apply([Route(model="asleep", provider="p", base_url="http://127.0.0.1:9", upstream_model="m", sku=sku)])

    error = refused(local, batch_file(2, model="asleep"))

    assert isinstance(error, InternalServerError)
    assert (error.status_code, error.code) == (503, "batch_routing_unavailable")


def test_batch_of_another_account_is_not_found(local: Local) -> None:
    batch = local.ended(local.create(batch_file(2)))
    assert batch.output_file_id is not None

    for attempt in (
        lambda: local.other.batches.retrieve(batch.id),
        lambda: local.other.batches.cancel(batch.id),
        lambda: local.other.files.retrieve(batch.input_file_id),
        lambda: local.other.files.content(str(batch.output_file_id)),
        lambda: local.other.batches.create(
            input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
    ):
        with pytest.raises(NotFoundError):
            attempt()
    assert batch.id not in {other.id for other in local.other.batches.list()}


def test_long_answers_come_out_in_order(local: Local) -> None:
    local.upstream.set(answer_bytes=150_000)
    batch = local.ended(local.create(batch_file(150)))

    assert batch.status == "completed"
    assert_every_line_once(local, batch.id, 150)
