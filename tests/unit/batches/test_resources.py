"""The API's objects have every field of the contract, null when unset, in OpenAI's types."""

import json

from nightshift.batches.resources import MAX_PAGE_BYTES, batch_object, list_object
from openai.types import Batch

from tests.unit.samples import batch_item

BATCH_FIELDS = {
    *("id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status"),
    *("output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at"),
    *(
        "failed_at",
        "expired_at",
        "cancelling_at",
        "cancelled_at",
        "request_counts",
        "usage",
        "metadata",
        "callback_url",
    ),
}
REQUIRED = {"id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at", "expires_at"}
COUNTS = {"total": 3, "completed": 2, "failed": 1}


def test_a_new_batch_has_every_field_of_the_contract_and_no_other() -> None:
    batch = batch_object(batch_item())
    assert set(batch) == BATCH_FIELDS
    assert {name for name, value in batch.items() if value is not None} == REQUIRED


def test_nothing_of_the_inside_is_shown() -> None:
    inside = {"route": "{}", "lines": 3, "chunks": 1, "open": "open", "output_expires_seconds": 3600}
    shown = json.dumps(batch_object(batch_item(**inside)))
    assert "acct_1" not in shown
    assert not any(f'"{name}"' in shown for name in inside)


def test_what_is_set_is_shown() -> None:
    fields = {
        "model": "m",
        "output_file_id": "file_2",
        "error_file_id": "file_3",
        "request_counts": COUNTS,
        "usage": {"total_tokens": 1},
        "metadata": {"a": "b"},
        "callback_url": "https://hooks.example.com",
        "cancelled_at": 9,
    }
    batch = batch_object(batch_item(**fields))
    assert {name: batch[name] for name in fields} == fields


def test_errors_are_a_list_object() -> None:
    entry = {"code": "invalid_method", "message": "m", "param": "method", "line": 2}
    assert batch_object(batch_item(errors=[entry]))["errors"] == {"object": "list", "data": [entry]}
    assert batch_object(batch_item(errors=[]))["errors"] is None


def test_the_sdk_reads_a_batch() -> None:
    entry = {"code": "invalid_method", "message": "m", "param": "method", "line": 2}
    batch = Batch.model_validate(batch_object(batch_item(errors=[entry], request_counts=COUNTS)), strict=True)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].line == 2
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 2


def test_a_page_names_its_ends() -> None:
    assert list_object([{"id": "a"}, {"id": "b"}], True) == {
        "object": "list",
        "data": [{"id": "a"}, {"id": "b"}],
        "first_id": "a",
        "last_id": "b",
        "has_more": True,
    }
    assert list_object([], False) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_page_holds_what_fits_into_one_answer() -> None:
    long = [{"id": str(number), "filename": "é" * MAX_PAGE_BYTES} for number in range(3)]
    page = list_object(long, False)
    assert (page["data"], page["last_id"], page["has_more"]) == ([long[0]], "0", True)
    short = [{"id": str(number), "filename": "e" * (MAX_PAGE_BYTES // 3)} for number in range(3)]
    assert (list_object(short, False)["last_id"], list_object(short, True)["has_more"]) == ("1", True)
