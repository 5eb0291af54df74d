"""The API's objects, from the items that are stored."""

import json
from typing import Any

import msgspec

from nightshift.batches.record import TIMESTAMPS, Batch, Counts


def file_object(item: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": item["sk"],
        "object": "file",
        "bytes": item["bytes"],
        "created_at": item["created_at"],
        "expires_at": item.get("expires_at"),
        "filename": item["filename"],
        "purpose": item["purpose"],
        "status": item["status"],
        "status_details": None,
        "asset_group": item.get("asset_group"),
    }


def upload_object(item: dict[str, Any], file: dict[str, Any] | None = None) -> dict[str, Any]:
    """OpenAI's upload object; ``file`` is the item of the file that a completed upload became."""
    return {
        "id": item["sk"],
        "object": "upload",
        "bytes": item["bytes"],
        "created_at": item["created_at"],
        "expires_at": item["expires_at"],
        "filename": item["filename"],
        "purpose": item["purpose"],
        "status": item["status"],
        "file": file and file_object(file),
    }


def batch_object(batch: Batch, counts: Counts | None = None) -> dict[str, Any]:
    """The batch object of the API: every field, null when unset. ``counts`` are its live ``request_counts``."""
    known = msgspec.to_builtins(batch)
    errors = known["errors"]
    plan = batch.plan
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": plan and plan.model,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        **{field: known[field] for field in TIMESTAMPS},
        "request_counts": msgspec.to_builtins(counts or batch.request_counts or (plan and Counts(plan.lines))),
        "usage": known["usage"],
        "metadata": batch.metadata,
        "callback_url": batch.callback_url,
    }


def delivery_object(item: dict[str, Any]) -> dict[str, Any]:
    """What happened to a webhook."""
    return {
        "id": item["id"],
        "object": "webhook_delivery",
        "event_id": item["event_id"],
        "event_type": item["event_type"],
        "url": item["url"],
        "status": item["state"],
        "created_at": item["created_at"],
        "next_attempt_at": item.get("next_attempt_at"),
        "attempts": item["attempts"],
    }


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
