"""The batch object has every field of the contract, null when unset, in OpenAI's types."""

from typing import Any

import msgspec
from nightshift.batches.resources import batch_object
from openai.types import Batch

from tests.unit.samples import batch_item

BATCH_FIELDS = {
    *("id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status"),
    *("output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at"),
    *("failed_at", "expired_at", "cancelling_at", "cancelled_at"),
    *("request_counts", "usage", "metadata", "callback_url"),
}
REQUIRED = {"id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at", "expires_at"}
COUNTS = {"total": 3, "completed": 2, "failed": 1}
USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
}
FAULT = {"code": "invalid_method", "message": "m", "param": "method", "line": 2}


def shown(**fields: Any) -> dict[str, Any]:
    """The JSON of a batch whose item has ``fields``."""
    batch: dict[str, Any] = msgspec.to_builtins(batch_object(batch_item(**fields)))
    return batch


def test_a_new_batch_has_every_field() -> None:
    batch = shown()
    assert set(batch) == BATCH_FIELDS
    assert {name for name, value in batch.items() if value is not None} == REQUIRED


def test_internal_fields_are_hidden() -> None:
    internal = {"route": "{}", "lines": 3, "chunks": 1, "open": "open", "output_expires_seconds": 3600}
    batch = shown(**internal)
    assert "acct_1" not in str(batch)
    assert not set(internal) & set(batch)


def test_fields_that_are_set_are_shown() -> None:
    fields = {
        "model": "m",
        "output_file_id": "file_2",
        "error_file_id": "file_3",
        "request_counts": COUNTS,
        "usage": USAGE,
        "metadata": {"a": "b"},
        "callback_url": "https://hooks.example.com",
        "cancelled_at": 9,
    }
    batch = shown(**fields)
    assert {name: batch[name] for name in fields} == fields


def test_counts_are_zero_once_lines_are_known() -> None:
    assert shown(lines=3)["request_counts"] == {"total": 3, "completed": 0, "failed": 0}


def test_errors_are_a_list_object() -> None:
    assert shown(errors=[FAULT])["errors"] == {"object": "list", "data": [FAULT]}
    assert shown(errors=[])["errors"] is None


def test_the_sdk_reads_a_batch() -> None:
    batch = Batch.model_validate(shown(errors=[FAULT], request_counts=COUNTS, usage=USAGE), strict=True)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].line == 2
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 2
