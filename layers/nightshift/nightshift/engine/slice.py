"""One slice of one chunk: what a worker's invocation does."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned
from nightshift.chunks import seats
from nightshift.chunks.chunk import Carry, Chunk, Deadlines, InputGoneError, SliceResult, waiting
from nightshift.chunks.chunk_run import ChunkRun
from nightshift.chunks.chunk_store import S3ChunkStore
from nightshift.chunks.meter import Meter
from nightshift.chunks.permit import Permit
from nightshift.chunks.place import Place
from nightshift.chunks.run_limits import RunLimits
from nightshift.chunks.tail import request_seconds
from nightshift.chunks.tenure import Tenure
from nightshift.core.ids import new_id
from nightshift.core.log import count, logger
from nightshift.input import layout
from nightshift.input.plan import Task
from nightshift.routes import store as routes
from nightshift.routes.health import trouble_of
from nightshift.routes.route import Route
from nightshift.upstream import sockets
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.client import NoApiKeyError, Upstream, api_key

# Answers of one worker in memory before they are stored. While they fill it, no request starts.
ANSWER_BYTES = 32 * 1024 * 1024
LIMITS = RunLimits()
# How long a worker stays for a permit that is near, and how often it looks.
NEAR_SECONDS, LOOK_SECONDS = 10.0, 1.0
# The tables are restored by copying them, which takes longer.
FRESH_SECONDS = 300


def run_slice(task: Task, carry: Carry, batch: Batch, seconds: float) -> SliceResult:
    """Work on the task's chunk for at most ``seconds``, starting from the last slice's ``carry``."""
    plan = batch.plan
    if plan is None or not batch.is_open_to_work:
        seats.leave_queues(batch)
        return SliceResult("done")
    plan = replace(plan, route=routes.current(plan.route))
    return asyncio.run(_run(task, carry, batch, plan, seconds))


def ask_provider(task: Task, batch: Batch, seconds: float) -> SliceResult | None:
    """Visit the provider's batch API only; None if lines are to go in real time."""
    plan = batch.plan
    if plan is None or plan.route.mode != "batch" or not batch.is_open_to_work:
        return None
    plan = replace(plan, route=routes.current(plan.route))
    return asyncio.run(_ask_provider(task, batch, plan, seconds))


async def _ask_provider(task: Task, batch: Batch, plan: Planned, seconds: float) -> SliceResult | None:
    from nightshift.submissions.visit import visit_provider  # few routes need it

    route = plan.route
    chunk = Chunk(batch.id, plan.model, route.upstream_model, task.segments, 0, _raw_fields(route.extra_body))
    try:
        return await visit_provider(task, batch, plan, chunk, seconds)
    except InputGoneError:
        _tell_of_lost_input(task)
        return SliceResult("done")


async def _run(task: Task, carry: Carry, batch: Batch, plan: Planned, seconds: float) -> SliceResult:
    ends_at = time.time() + seconds
    route = plan.route
    if route.mode == "batch":
        from nightshift.submissions.visit import rescue_route

        result = await _ask_provider(task, batch, plan, seconds)
        if result is not None:
            return result
        if batch.status == "cancelling":
            return SliceResult("done")
        rescue = rescue_route(batch, plan)
        batch, route = replace(batch, rescue_route=rescue), routes.current(rescue)
    return await _run_realtime(task, carry, batch, plan, route, ends_at)


async def _run_realtime(
    task: Task, carry: Carry, batch: Batch, plan: Planned, route: Route, ends_at: float
) -> SliceResult:
    run_id, account = new_id("run"), await asyncio.to_thread(seats.account_of, batch)
    meter = seats.meter_of(task, batch, account.quotas, run_id)
    if meter and not await asyncio.to_thread(meter.may_begin):
        return waiting(meter.pause, "spend_limit", carry)
    place = seats.place_of(task, batch, route, account.weight)
    concurrency = _concurrency(route)
    wanted = min(concurrency, sum(segment.lines for segment in task.segments))
    permit = await _first_permit(place, wanted, ends_at)
    if not permit.ceiling:
        # A visit that may send nothing reads no more than this.
        return waiting(permit.pause, "route", carry)
    if task.scout and not permit.probe:
        place.leave("more")
        return SliceResult("park", 0, carry)  # there is room, so all chunks may go
    try:
        key = api_key(route)
    except NoApiKeyError as error:
        pause = place.report(trouble_of(0, str(error)))
        place.leave("wait", wanted, pause)
        return waiting(pause, "route", carry)
    budget, tenure = ByteBudget(ANSWER_BYTES), Tenure(place, permit, scout=task.scout)
    store = S3ChunkStore(task, batch.input_file_id, run_id)
    store.begin(is_fresh=_is_fresh(batch, plan))
    seconds = request_seconds(route.timeout_seconds, ends_at - time.time() - LIMITS.slice_margin_seconds)
    deadlines = Deadlines(ends_at, batch.expires_at, seconds)
    extra_body = _raw_fields(route.realtime_extra_body)
    async with Upstream(route, key, concurrency, budget, endpoint=batch.endpoint, timeout_seconds=seconds) as upstream:
        run = ChunkRun(
            Chunk(batch.id, plan.model, route.upstream_model, task.segments, concurrency, extra_body),
            store,
            upstream,
            deadlines,
            budget,
            carry,
            tenure=tenure,
            meter=meter,
            limits=LIMITS,
        )
        result = await run.run()
    result = await _leave_route(run, result, place, tenure, meter)
    if store.superseded:
        # The chunk is not done, and it is the newer run that says when it is.
        result = SliceResult("more", did=run.statistics)
    _report(run, result, f"{route.provider}/{route.model}")
    if run.input_gone and result.state == "done":
        _tell_of_lost_input(task)
    return result


def _is_fresh(batch: Batch, plan: Planned) -> bool:
    """Whether the first run of a chunk is known to be that: no submission has come before it, and no restore of the
    tables since, which would take longer."""
    return plan.route.mode == "realtime" and time.time() < batch.created_at + FRESH_SECONDS


def _concurrency(route: Route) -> int:
    """Requests that a worker on the route may have in flight: no more than connections that it may open."""
    allowed, room = min(layout.WORKER_CONCURRENCY, route.max_concurrency), sockets.room()
    if room < allowed:
        logger.warning("fewer files are left than requests may be in flight", room=room)
    return min(allowed, room)


async def _first_permit(place: Place, wanted: int, ends_at: float) -> Permit:
    """The permit to begin with. One that is near is waited for: coming again would take longer."""
    give_up_at = min(time.time() + NEAR_SECONDS, ends_at)
    while True:
        permit = await asyncio.to_thread(place.take, wanted)
        if permit.ceiling or not permit.is_near or time.time() >= give_up_at:
            return permit
        await asyncio.sleep(LOOK_SECONDS)


async def _leave_route(
    run: ChunkRun, result: SliceResult, place: Place, tenure: Tenure, meter: Meter | None
) -> SliceResult:
    """Tell the account and the route what the run did. Returns how the slice ends."""
    if run.trouble is not None:
        result = waiting(place.report(run.trouble), "route", result.carry)
    if meter:
        await asyncio.to_thread(meter.settle)
    # Who may spend no more does not wait for room at the route.
    spent_up = meter is not None and meter.spent_up
    _leave(place, SliceResult("done") if spent_up else result, run.wanted, tenure.answered_at)
    return replace(result, did=run.statistics)


def _leave(place: Place, result: SliceResult, wanted: int, answered_at: float) -> None:
    try:
        place.leave("wait" if result.state == "park" else result.state, wanted, result.wait_seconds, answered_at)
    except Exception:
        logger.exception("lease not given back")  # it ends by itself


def _tell_of_lost_input(task: Task) -> None:
    batches.put_problem(task.batch_id, task.chunk, "The input file was deleted while the batch ran.")


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
