"""One slice of one chunk: what a worker's invocation does."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned
from nightshift.core.log import count, logger
from nightshift.engine.chunk import Carry, Chunk, Deadlines, SliceResult
from nightshift.engine.chunk_run import ChunkRun
from nightshift.engine.chunk_store import S3ChunkStore
from nightshift.engine.provider_slice import rescue_route, visit_provider
from nightshift.engine.run_limits import RunLimits
from nightshift.input import layout
from nightshift.input.plan import Task
from nightshift.routes.route import Route
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.client import NoApiKeyError, Upstream, api_key

# An execution's history ends at 25,000 events (AWS: "Step Functions service quotas"). A visit that waits adds nine.
MAX_VISITS = 1_000
# Answers of one worker in memory before they are stored. While they fill it, no request starts.
ANSWER_BYTES = 32 * 1024 * 1024
LIMITS = RunLimits()

# The statuses in which a chunk has work, by its route's mode. A batch of a provider is to be submitted before the batch
# is in progress, and to be cancelled after.
_WORKED_ON = {
    "realtime": frozenset({"in_progress"}),
    "batch": frozenset({"validating", "in_progress", "cancelling"}),
}


def run_slice(task: Task, carry: Carry, visits: int, seconds: float) -> SliceResult:
    """Work on the task's chunk for at most ``seconds``, starting from the last slice's ``carry``.

    ``visits`` counts the slices of its execution, this one included.
    """
    if visits > MAX_VISITS:
        # The new execution sends at once, because the pause of the last slice is over.
        return SliceResult("renew")
    batch = batches.get(task.account_id, task.batch_id)
    plan = batch.plan
    if plan is None or batch.status not in _WORKED_ON[plan.route.mode]:
        return SliceResult("done")
    try:
        return asyncio.run(_run(task, carry, batch, plan, seconds))
    except NoApiKeyError as error:
        # Finalize writes the chunk's lines as failed.
        problem = f"No request could be sent: {error}."
        logger.error("chunk given up", problem=problem)
        batches.put_problem(task.batch_id, task.chunk, problem)
        return SliceResult("done")


async def _run(task: Task, carry: Carry, batch: Batch, plan: Planned, seconds: float) -> SliceResult:
    ends_at = time.time() + seconds
    route = plan.route
    if route.mode == "batch":
        chunk = Chunk(batch.id, plan.model, route.upstream_model, task.segments, 0, _raw_fields(route.extra_body))
        result = await visit_provider(task, batch, plan, chunk, seconds)
        if result is not None:
            return result
        route = rescue_route(batch, plan)
    return await _run_realtime(task, carry, batch, plan, route, ends_at)


async def _run_realtime(
    task: Task, carry: Carry, batch: Batch, plan: Planned, route: Route, ends_at: float
) -> SliceResult:
    concurrency = layout.chunk_concurrency(route.max_concurrency, plan.chunks)
    budget = ByteBudget(ANSWER_BYTES)
    deadlines = Deadlines(ends_at, batch.expires_at, route.timeout_seconds)
    extra_body = _raw_fields(route.realtime_extra_body)
    async with Upstream(route, api_key(route), concurrency, budget) as upstream:
        run = ChunkRun(
            Chunk(batch.id, plan.model, route.upstream_model, task.segments, concurrency, extra_body),
            S3ChunkStore(task, batch.input_file_id),
            upstream,
            deadlines,
            budget,
            carry,
            limits=LIMITS,
        )
        result = await run.run()
    _report(run, result, f"{route.provider}/{route.model}")
    if run.statistics.input_gone and result.state == "done":
        batches.put_problem(task.batch_id, task.chunk, "The input file was deleted while the batch ran.")
    return result


def _raw_fields(fields: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}


def _report(run: ChunkRun, result: SliceResult, route: str) -> None:
    """Log what the slice did, and count it for the route."""
    did = run.statistics
    logger.info(
        "slice ended",
        state=result.state,
        wait_seconds=result.wait_seconds,
        completed=run.completed,
        failed=run.failed,
        sent=did.sent,
        retried=did.retried,
        refused=did.refused,
    )
    metrics: dict[str, float] = {
        "RequestsSent": did.sent,
        "RequestsRetried": did.retried,
        "RequestsRefused": did.refused,
    }
    if did.sent:
        metrics["UpstreamSeconds"] = did.upstream_seconds / did.sent
    count(metrics, route=route)
