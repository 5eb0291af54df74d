"""The batch object has every field of docs/contract.md, null when unset, in OpenAI's types."""

from typing import Any

import msgspec
from nightshift.batches.record import BatchUsage, InputTokensDetails, OutputTokensDetails, RequestCounts
from nightshift.batches.resources import batch_object
from nightshift.core.errors import Fault
from openai.types import Batch

from tests.unit.samples import MODEL, batch, plan

BATCH_FIELDS = {
    *("id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status"),
    *("output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at"),
    *("failed_at", "expired_at", "cancelling_at", "cancelled_at"),
    *("request_counts", "answer_seconds", "usage", "metadata", "callback_url", "retry_of"),
}
REQUIRED = {"id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at", "expires_at"}
COUNTS = RequestCounts(3, 2, 1)
USAGE = BatchUsage(3, InputTokensDetails(1), 2, OutputTokensDetails(0), 5)
FAULT = Fault("invalid_method", "m", "method", 2)


def shown(**fields: Any) -> dict[str, Any]:
    """The JSON of a batch with ``fields``."""
    resource: dict[str, Any] = msgspec.to_builtins(batch_object(batch(**fields)))
    return resource


def test_a_new_batch_has_every_field() -> None:
    resource = shown()
    assert set(resource) == BATCH_FIELDS
    assert {name for name, value in resource.items() if value is not None} == REQUIRED


def test_internal_fields_are_hidden() -> None:
    resource = shown(plan=plan(), output_expires_seconds=3600, request_digest="d", overdue=True)
    assert set(resource) == BATCH_FIELDS
    assert "acct_1" not in str(resource)
    assert "u.example" not in str(resource)


def test_fields_that_are_set_are_shown() -> None:
    fields = {
        "output_file_id": "file_2",
        "error_file_id": "file_3",
        "request_counts": COUNTS,
        "usage": USAGE,
        "metadata": {"a": "b"},
        "callback_url": "https://hooks.example.com",
        "cancelled_at": 9,
    }
    resource = shown(plan=plan(), status="cancelled", **fields)
    assert resource["model"] == MODEL
    assert {name: resource[name] for name in fields} == msgspec.to_builtins(fields)


def test_counts_are_null_only_while_validating() -> None:
    assert shown(plan=plan(3))["request_counts"] is None
    assert shown(plan=plan(3), status="in_progress")["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    assert shown(status="cancelled")["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


def test_errors_are_a_list_object() -> None:
    entry = {"code": "invalid_method", "message": "m", "param": "method", "line": 2}
    assert shown(errors=(FAULT,))["errors"] == {"object": "list", "data": [entry]}
    assert shown(errors=())["errors"] is None


def test_the_sdk_reads_a_batch() -> None:
    read = Batch.model_validate(
        shown(status="failed", errors=(FAULT,), request_counts=COUNTS, usage=USAGE), strict=True
    )
    assert read.errors is not None
    assert read.errors.data is not None
    assert read.errors.data[0].line == 2
    assert read.request_counts is not None
    assert read.request_counts.completed == 2
