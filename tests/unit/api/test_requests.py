"""A body or a query that does not fit its model is an error with what was given and what is allowed."""

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from nightshift.api.bodies import CompleteUpload, CreateBatch, CreateUpload, ListBatches, PutWebhook
from nightshift.api.requests import body_bytes, parse_body, parse_query, validate
from nightshift.core.errors import BadRequestError, TooLargeError
from nightshift.core.limits import MAX_CALL_BYTES
from pydantic import BaseModel

BATCH = {"input_file_id": "file_1"}
UPLOAD = {"purpose": "batch", "filename": "a.jsonl", "bytes": 1, "mime_type": "text/plain"}


def app(body: str | None = None, *, encoded: bool = False, query: dict[str, list[str]] | None = None) -> Any:
    """A resolver in the middle of a call, as far as parsing goes."""
    event = SimpleNamespace(body=body, is_base64_encoded=encoded, resolved_query_string_parameters=query)
    return SimpleNamespace(current_event=event)


def refused(model: type[BaseModel], content: dict[str, Any]) -> BadRequestError:
    with pytest.raises(BadRequestError) as error:
        validate(model, content)
    return error.value


@pytest.mark.parametrize(
    ("content", "code", "param", "message"),
    [
        ({}, "missing_required_parameter", "input_file_id", "Missing required parameter: 'input_file_id'."),
        (BATCH | {"foo": 1}, "unknown_parameter", "foo", "Unknown parameter: 'foo'."),
        (
            BATCH | {"output_expires_after": {"anchor": "created_at", "seconds": 3600, "foo": 1}},
            "unknown_parameter",
            "output_expires_after.foo",
            "Unknown parameter: 'output_expires_after.foo'.",
        ),
        (
            BATCH | {"endpoint": "/v1/x"},
            "invalid_value",
            "endpoint",
            "endpoint: invalid value '/v1/x'. Supported values are: '/v1/chat/completions', '/v1/responses', "
            "'/v1/embeddings', '/v1/completions' or '/v1/moderations'.",
        ),
        (
            {"input_file_id": 7},
            "invalid_value",
            "input_file_id",
            "input_file_id: invalid value 7. It must be a string.",
        ),
        (
            {"input_file_id": None},
            "invalid_value",
            "input_file_id",
            "input_file_id: invalid value null. It must be a string.",
        ),
        (
            BATCH | {"callback_url": True},
            "invalid_value",
            "callback_url",
            "callback_url: invalid value true. It must be a string.",
        ),
        (BATCH | {"metadata": [1]}, "invalid_value", "metadata", "metadata: invalid value. It must be an object."),
        (
            BATCH | {"metadata": {"k" * 65: "a"}},
            "invalid_value",
            f"metadata.{'k' * 65}",
            f"metadata.{'k' * 65}: invalid value '{'k' * 64}'.... It must have at most 64 characters.",
        ),
        (
            BATCH | {"metadata": {str(number): "a" for number in range(17)}},
            "invalid_value",
            "metadata",
            "metadata: invalid value. It must have at most 16 entries.",
        ),
        (
            BATCH | {"output_expires_after": 3},
            "invalid_value",
            "output_expires_after",
            "output_expires_after: invalid value 3. It must be an object.",
        ),
    ],
)
def test_a_batch_with_a_wrong_parameter(content: dict[str, Any], code: str, param: str, message: str) -> None:
    error = refused(CreateBatch, content)
    assert (error.code, error.param, error.message) == (code, param, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes": 0}, "bytes: invalid value 0. It must be at least 1."),
        ({"bytes": 1.5}, "bytes: invalid value 1.5. It must be an integer."),
        ({"filename": 7}, "filename: invalid value 7. It must be a string."),
        ({"purpose": "fine-tune"}, "purpose: invalid value 'fine-tune'. Supported values are: 'batch'."),
    ],
)
def test_an_upload_with_a_wrong_parameter(changes: dict[str, Any], message: str) -> None:
    assert refused(CreateUpload, UPLOAD | changes).message == message


def test_long_names_and_values_are_cut() -> None:
    assert refused(CreateBatch, BATCH | {"k" * 10_000: 1}).param == "k" * 256
    assert len(refused(CreateBatch, BATCH | {"endpoint": "v" * 10_000}).message) < 300


def test_a_list_that_must_not_be_empty() -> None:
    error = refused(CompleteUpload, {"part_ids": []})
    assert error.message == "part_ids: invalid value. It must have 1 or more entries."


@pytest.mark.parametrize(
    ("limit", "rule"),
    [("101", "It must be at most 100."), ("x", "It must be an integer."), ("1.5", "It must be an integer.")],
)
def test_a_query_with_a_wrong_limit(limit: str, rule: str) -> None:
    with pytest.raises(BadRequestError) as error:
        parse_query(app(query={"limit": [limit]}), ListBatches)
    assert error.value.message == f"limit: invalid value '{limit}'. {rule}"


def test_an_unknown_status_lists_all_statuses() -> None:
    message = refused(ListBatches, {"status": "done"}).message
    assert message.startswith("status: invalid value 'done'. Supported values are: 'validating', 'failed', ")


def test_invalid_unicode_is_quoted_safely() -> None:
    message = refused(ListBatches, {"after": "batch_\ud800"}).message
    assert message == "after: invalid value 'batch_\\ud800'. It must be valid Unicode."


def test_the_last_of_two_query_values_counts() -> None:
    assert parse_query(app(query={"limit": ["1", "2"]}), ListBatches).limit == 2


def test_a_missing_body_is_an_empty_object() -> None:
    with pytest.raises(BadRequestError, match=r"Missing required parameter: 'url'\."):
        parse_body(app(), PutWebhook)


@pytest.mark.parametrize("body", ["{", "nope", '{"url": "\\ud800"}'])
def test_a_body_that_is_not_json(body: str) -> None:
    with pytest.raises(
        BadRequestError, match=r"The request body is not valid JSON: .* at line 1 column \d+\."
    ) as error:
        parse_body(app(body), PutWebhook)
    assert (error.value.code, error.value.param) == ("invalid_json", None)


def test_a_body_that_is_not_an_object() -> None:
    with pytest.raises(BadRequestError, match=r"The request body: invalid value\. It must be an object\."):
        parse_body(app("[]"), PutWebhook)


def test_an_encoded_body_is_decoded() -> None:
    assert body_bytes(app(base64.b64encode(b"\xff").decode(), encoded=True)) == b"\xff"
    with pytest.raises(BadRequestError, match="cannot be decoded"):
        body_bytes(app("abc", encoded=True))


def test_a_body_over_the_limit_is_too_large() -> None:
    assert len(body_bytes(app("a" * MAX_CALL_BYTES))) == MAX_CALL_BYTES
    with pytest.raises(TooLargeError, match=f"{MAX_CALL_BYTES + 1} bytes.*/v1/uploads.*upload_url"):
        body_bytes(app("a" * (MAX_CALL_BYTES + 1)))
