"""Batches as the API and the events show them. Every field is always there, null when unset."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from nightshift.batches.status import Status


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """One fault of an input file."""

    code: str
    message: str
    param: str | None
    line: Annotated[int | None, Meta(description="Counted from 1; null for a fault of the whole file.")]


class BatchErrors(Struct, frozen=True, kw_only=True):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[ErrorDetail]


class RequestCounts(Struct, frozen=True, kw_only=True):
    """Lines of a batch."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int


class OutputTokensDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens, summed over the lines of a batch."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchResource(Struct, frozen=True, kw_only=True):
    """A batch. Times are seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Literal["/v1/chat/completions"]
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    cancelling_at: int | None
    failed_at: int | None
    completed_at: int | None
    expired_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts | None
    usage: Usage | None
    metadata: dict[str, str] | None
    callback_url: str | None


def batch_object(item: dict[str, Any]) -> BatchResource:
    """A batch as the API shows it, from its item."""
    errors, usage = item.get("errors"), item.get("usage")
    counts = item.get("request_counts") or _counts_at_start(item)
    return BatchResource(
        id=item["sk"],
        endpoint=item["endpoint"],
        model=item.get("model"),
        errors=BatchErrors(data=msgspec.convert(errors, list[ErrorDetail])) if errors else None,
        input_file_id=item["input_file_id"],
        completion_window=item["completion_window"],
        status=item["status"],
        output_file_id=item.get("output_file_id"),
        error_file_id=item.get("error_file_id"),
        created_at=item["created_at"],
        expires_at=item["expires_at"],
        in_progress_at=item.get("in_progress_at"),
        finalizing_at=item.get("finalizing_at"),
        cancelling_at=item.get("cancelling_at"),
        failed_at=item.get("failed_at"),
        completed_at=item.get("completed_at"),
        expired_at=item.get("expired_at"),
        cancelled_at=item.get("cancelled_at"),
        request_counts=msgspec.convert(counts, RequestCounts | None),
        usage=msgspec.convert(usage, Usage | None),
        metadata=item.get("metadata"),
        callback_url=item.get("callback_url"),
    )


def _counts_at_start(item: dict[str, Any]) -> dict[str, int] | None:
    """The counts of a batch whose lines are known and of which none has ended."""
    return {"total": int(item["lines"]), "completed": 0, "failed": 0} if "lines" in item else None
