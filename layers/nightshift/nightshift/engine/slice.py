"""One slice of one chunk: what a worker's invocation does."""

import asyncio
import time

from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned
from nightshift.core.log import count, logger
from nightshift.engine.chunk_run import ROOM_BYTES, ChunkRun, SliceResult
from nightshift.engine.chunk_store import S3ChunkStore
from nightshift.input import layout
from nightshift.input.plan import Task
from nightshift.upstream.byte_budget import Room
from nightshift.upstream.client import NoApiKeyError, Upstream, api_key

# An execution's history ends at 25,000 events (AWS: "Step Functions service quotas"). A visit that waits adds nine.
MAX_VISITS = 1_000


def run_slice(task: Task, visits: int, seconds: float) -> SliceResult:
    """Work on the task's chunk for at most ``seconds``. ``visits`` counts the slices of its execution, this one
    included."""
    if visits > MAX_VISITS:
        # Before anything is sent: the pause that the last slice asked for is over.
        return SliceResult("renew")
    batch = batches.get(task.account_id, task.batch_id)
    if batch.status != "in_progress" or batch.plan is None:
        return SliceResult("done")
    try:
        return asyncio.run(_run(task, batch, batch.plan, ends_at=time.time() + seconds))
    except NoApiKeyError as error:
        # Finalize answers the chunk's lines.
        problem = f"No request could be sent: {error}."
        logger.error("chunk given up", problem=problem)
        batches.put_problem(task.batch_id, task.chunk, problem)
        return SliceResult("done")


async def _run(task: Task, batch: Batch, plan: Planned, ends_at: float) -> SliceResult:
    route = plan.route
    concurrency = layout.chunk_concurrency(route.max_concurrency, plan.chunks)
    room = Room(ROOM_BYTES)
    async with Upstream(route, api_key(route), concurrency, room) as upstream:
        run = ChunkRun(
            batch_id=task.batch_id,
            model=plan.model,
            upstream_model=route.upstream_model,
            segments=task.spans(),
            keep=S3ChunkStore(task, batch.input_file_id),
            send=upstream.send,
            room=room,
            concurrency=concurrency,
            request_seconds=route.timeout_seconds,
            ends_at=ends_at,
            expires_at=batch.expires_at,
            carry=task.slice.get("carry"),
        )
        result = await run.run()
    _report(run, result, f"{route.provider}/{route.model}")
    if run.input_gone and result.state == "done":
        batches.put_problem(task.batch_id, task.chunk, "The input file was deleted while the batch ran.")
    return result


def _report(run: ChunkRun, result: SliceResult, route: str) -> None:
    """Log what the slice did, and count it for the route."""
    logger.info(
        "slice ended",
        state=result.state,
        wait_seconds=result.wait_seconds,
        completed=run.completed,
        failed=run.failed,
        sent=run.sent,
        retried=run.retried,
        refused=run.refused,
    )
    metrics: dict[str, float] = {
        "RequestsSent": run.sent,
        "RequestsRetried": run.retried,
        "RequestsRefused": run.refused,
    }
    if run.sent:
        metrics["UpstreamSeconds"] = run.upstream_seconds / run.sent
    count(metrics, route=route)
