"""The API's objects, from the items that are stored."""

import json
from typing import Any

from nightshift.batches.status import STATUSES, timestamp_field

_TIMESTAMPS = [field for status in STATUSES if (field := timestamp_field(status))]


def batch_object(item: dict[str, Any]) -> dict[str, Any]:
    """The batch object: every field of CONTRACT "The batch object", null when unset."""
    errors = item.get("errors")
    return {
        "id": item["sk"],
        "object": "batch",
        "endpoint": item["endpoint"],
        "model": item.get("model"),
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": item["input_file_id"],
        "completion_window": item["completion_window"],
        "status": item["status"],
        "output_file_id": item.get("output_file_id"),
        "error_file_id": item.get("error_file_id"),
        "created_at": item["created_at"],
        "expires_at": item["expires_at"],
        **{field: item.get(field) for field in _TIMESTAMPS},
        "request_counts": item.get("request_counts") or _counts_at_start(item),
        "usage": item.get("usage"),
        "metadata": item.get("metadata"),
        "callback_url": item.get("callback_url"),
    }


def _counts_at_start(item: dict[str, Any]) -> dict[str, int] | None:
    """The counts of a batch whose lines are known and whose chunks were not asked."""
    return {"total": int(item["lines"]), "completed": 0, "failed": 0} if "lines" in item else None


# Lambda answers with 6 MB at most.
MAX_PAGE_BYTES = 5 * 1024 * 1024


def list_object(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """OpenAI's list page; what does not fit into one answer is left to the next."""
    size = 0
    for number, each in enumerate(data):
        size += len(json.dumps(each, ensure_ascii=False).encode())
        if number and size > MAX_PAGE_BYTES:
            data, has_more = data[:number], True
            break
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
