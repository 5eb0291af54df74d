"""One slice of one chunk: the Distributed Map's worker. Answers done, more, wait with the seconds, or renew."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import store as batches
from nightshift.core.errors import NotFoundError
from nightshift.core.log import count, logger
from nightshift.engine.chunk_run import ROOM_BYTES, ChunkRun, InputGoneError, SliceResult
from nightshift.files import store as files
from nightshift.input import layout
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.results import store as results
from nightshift.results.lines import OutputLine, SealSummary
from nightshift.routes.route import Route
from nightshift.upstream.byte_budget import Room
from nightshift.upstream.client import NoApiKeyError, Upstream, api_key

# An execution's history ends at 25,000 events (AWS: "Step Functions service quotas"). A visit that waits has nine.
MAX_VISITS = 1_000


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a ``Task``; returns ``{"state", "wait_seconds", "carry", "visits"}``."""
    task = msgspec.convert(event, Task)
    visits = task.slice.get("visits", 0) + 1
    logger.append_keys(batch_id=task.batch_id, chunk=task.chunk)
    # Asked for before anything is sent: the pause that the last slice wanted is over.
    result = SliceResult("renew") if visits > MAX_VISITS else _slice(task, context)
    return {**asdict(result), "visits": visits}


def _slice(task: Task, context: LambdaContext) -> SliceResult:
    batch = batches.get(task.account_id, task.batch_id)
    if batch["status"] != "in_progress":
        return SliceResult("done")
    ends_at = time.time() + context.get_remaining_time_in_millis() / 1000
    try:
        return asyncio.run(_run(task, batch, ends_at))
    except NoApiKeyError as error:
        # The chunk is done as far as it can be; finalize answers its lines.
        problem = f"No request could be sent: {error}."
        logger.error("chunk given up", problem=problem)
        batches.put_problem(task.batch_id, task.chunk, problem)
        return SliceResult("done")


async def _run(task: Task, batch: dict[str, Any], ends_at: float) -> SliceResult:
    route = msgspec.json.decode(batch["route"], type=Route)
    concurrency = layout.chunk_concurrency(route.max_concurrency, batch["chunks"])
    room = Room(ROOM_BYTES)
    async with Upstream(route, api_key(route), concurrency, room) as upstream:
        run = ChunkRun(
            batch_id=task.batch_id,
            model=batch["model"],
            upstream_model=route.upstream_model,
            segments=task.spans(),
            keep=_Keep(task, batch["input_file_id"]),
            send=upstream.send,
            room=room,
            concurrency=concurrency,
            request_seconds=route.timeout_seconds,
            ends_at=ends_at,
            expires_at=batch["expires_at"],
            carry=task.slice.get("carry"),
        )
        result = await run.run()
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
    sent = {"RequestsSent": run.sent, "RequestsRetried": run.retried, "RequestsRefused": run.refused}
    times = {"UpstreamSeconds": run.upstream_seconds / run.sent} if run.sent else {}
    count(sent | times, route=f"{route.provider}/{route.model}")
    if run.input_gone and result.state == "done":
        batches.put_problem(task.batch_id, task.chunk, "The input file was deleted while the batch ran.")
    return result


class _Keep:
    """A chunk's lines and results in the bucket, its progress in the table."""

    def __init__(self, task: Task, input_file_id: str) -> None:
        self._task = task
        self._input_file_id = input_file_id

    def read(self, segment: Segment) -> bytes:
        try:
            return files.read_range(self._task.account_id, self._input_file_id, segment.start, segment.end)
        except NotFoundError as error:
            raise InputGoneError from error

    def sealed(self, segments: list[Segment]) -> list[SealSummary | None]:
        return results.all_sealed(self._task.batch_id, segments)

    def parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        return results.read_parts(self._task.batch_id, self._task.chunk, first_line, end_line)

    def write_part(self, lines: list[OutputLine]) -> None:
        results.write_part(self._task.batch_id, self._task.chunk, lines)

    def write_sealed(self, segment: Segment, lines: list[OutputLine]) -> SealSummary:
        return results.write_sealed(self._task.batch_id, segment, lines)

    def seal_parts(self, segment: Segment) -> SealSummary:
        return results.seal_parts(self._task.batch_id, self._task.chunk, segment)

    def progress(self, completed: int, failed: int) -> None:
        batches.put_progress(self._task.batch_id, self._task.chunk, completed=completed, failed=failed)

    def wanted(self) -> bool:
        return bool(batches.get(self._task.account_id, self._task.batch_id)["status"] == "in_progress")
