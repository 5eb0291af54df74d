"""Batches as the API and the events show them. Every field is always there, null when unset."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from nightshift.batches.progress import AnswerSeconds, Progress
from nightshift.batches.record import Batch, BatchUsage, RequestCounts
from nightshift.batches.status import Status
from nightshift.batches.visit import Outcome, Visit, WaitsFor
from nightshift.core.errors import Fault
from nightshift.routes.endpoint import EndpointPath


class BatchErrors(Struct, frozen=True, kw_only=True):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[Fault]


class BatchResource(Struct, frozen=True, kw_only=True):
    """A batch. Times are seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: EndpointPath
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
    answer_seconds: AnswerSeconds | None
    usage: BatchUsage | None
    metadata: dict[str, str] | None
    callback_url: str | None
    retry_of: str | None


def batch_object(batch: Batch, progress: Progress | None = None) -> BatchResource:
    """A batch as the API shows it; ``progress`` is how far it is now."""
    plan = batch.plan
    counts = (progress and progress.counts) or batch.request_counts or RequestCounts(plan.lines if plan else 0)
    return BatchResource(
        id=batch.id,
        endpoint=batch.endpoint,
        model=plan.model if plan else None,
        errors=BatchErrors(data=list(batch.errors)) if batch.errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=batch.created_at,
        expires_at=batch.expires_at,
        in_progress_at=batch.in_progress_at,
        finalizing_at=batch.finalizing_at,
        cancelling_at=batch.cancelling_at,
        failed_at=batch.failed_at,
        completed_at=batch.completed_at,
        expired_at=batch.expired_at,
        cancelled_at=batch.cancelled_at,
        request_counts=None if batch.status == "validating" else counts,
        answer_seconds=progress.answer_seconds if progress else None,
        usage=batch.usage,
        metadata=batch.metadata,
        callback_url=batch.callback_url,
        retry_of=batch.retry_of,
    )


class VisitResource(Struct, frozen=True, kw_only=True):
    """A worker's visit at a part of a batch. Times are seconds since 1970."""

    id: str
    object: Literal["batch.visit"] = "batch.visit"
    chunk: Annotated[int, Meta(description="The part of the batch, from 0.")]
    attempt: Annotated[int, Meta(description="Above 1 after visits that were killed, or had no room in Lambda.")]
    began_at: float
    ended_at: Annotated[float | None, Meta(description="null while it runs, and where it was killed.")]
    outcome: Outcome
    waits_until: float | None
    waits_for: WaitsFor | None
    requests_sent: int
    requests_retried: Annotated[int, Meta(description="Answers that failed and were asked for again.")]
    requests_refused: Annotated[int, Meta(description="Answers that the provider refused because of a limit.")]


def visit_object(visit_id: str, visit: Visit) -> VisitResource:
    """A visit as the API shows it."""
    return VisitResource(id=visit_id, **structs.asdict(visit))
