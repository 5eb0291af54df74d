"""One visit to a chunk that is answered by the provider's own batch API, and what happens to the rest of its lines."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned
from nightshift.chunks import seats
from nightshift.chunks.chunk import Chunk, SliceResult
from nightshift.chunks.chunk_store import S3ChunkStore
from nightshift.chunks.ledger import Ledger
from nightshift.chunks.meter import Meter
from nightshift.chunks.route_watch import RouteWatch
from nightshift.chunks.run_limits import RunLimits
from nightshift.core.errors import InvalidFileError, UnavailableError
from nightshift.core.ids import new_id
from nightshift.core.log import count
from nightshift.input.plan import Task
from nightshift.routes import store as routes
from nightshift.routes.route import Route, choose
from nightshift.routes.state import RouteState
from nightshift.submissions.client import BatchClient
from nightshift.submissions.decision import Times, Visit
from nightshift.submissions.run import SubmissionRun
from nightshift.submissions.store import SubmissionStore


async def visit_provider(task: Task, batch: Batch, plan: Planned, chunk: Chunk, seconds: float) -> SliceResult | None:
    """Go on with the chunk's submission for at most ``seconds``; None if its other lines are to go in real time."""
    route = plan.route
    run_id = new_id("run")
    account = await asyncio.to_thread(seats.account_of, batch)
    meter = seats.meter_of(task, batch, account.quotas)
    with TemporaryDirectory() as folder:
        visit = Visit(
            chunk_number=task.chunk,
            ends_at=time.time() + seconds,
            times=Times.of(batch.created_at, batch.expires_at, route.rescue_before_seconds),
            api=route.batch_api,
            endpoint=route.batch_endpoint(batch.endpoint),
            route=_Gate(RouteWatch(route, run_id, RouteState(route.id)), meter),
            folder=Path(folder),
            cancelled=lambda: _is_cancelled(batch),
            started=lambda: _start(batch),
            # A chunk of several goes on with the others, in rounds.
            swept=plan.chunks == 1,
        )
        store = S3ChunkStore(task, batch.input_file_id, run_id)
        submissions = SubmissionStore(batch.id, task.chunk, run_id)
        async with BatchClient(route) as client:
            result = await SubmissionRun(chunk, store, submissions, client, visit).run()
    if meter and result and result.state == "done":
        await asyncio.to_thread(_settle, meter, store, task)
    return result


class _Gate:
    """The route as ``watch`` knows it, and the account's limit: who has spent it up starts no submission."""

    def __init__(self, watch: RouteWatch, meter: Meter | None) -> None:
        self._watch = watch
        self._meter = meter
        self.answers = watch.answers
        self.report = watch.report

    def pause(self, *, starts: bool) -> int:
        pause = self._watch.pause(starts=starts)
        if pause or not starts or self._meter is None or self._meter.may_begin():
            return pause
        return self._meter.pause


def _settle(meter: Meter, store: S3ChunkStore, task: Task) -> None:
    """Charge what the chunk's answers have cost."""
    ledger = Ledger(RunLimits())
    ledger.restore_seals(task.segments, store.seals(task.segments))
    meter.follow(ledger)
    meter.settle()


def rescue_route(batch: Batch, plan: Planned) -> Route:
    """The route that answers the batch's lines in real time: the model's best one, or the same provider's.

    The first chunk that needs it chooses it for all, so that a batch has one real-time price.
    """
    if batch.rescue_route is not None:
        return batch.rescue_route
    realtime = [route for route in routes.for_model(plan.model) if route.mode == "realtime"]
    try:
        chosen = choose(realtime, plan.model, batch.endpoint)
    except (InvalidFileError, UnavailableError):
        chosen = plan.route
    _start(batch)
    count({"ChunksRescued": 1}, route=f"{plan.route.provider}/{plan.route.model}")
    return batches.lock_rescue(batch, chosen)


def _is_cancelled(batch: Batch) -> bool:
    return batches.get(batch.account_id, batch.id).status not in ("validating", "in_progress")


def _start(batch: Batch) -> None:
    """Put the batch in progress, if nothing has done so yet: its upstream has begun."""
    current = batches.get(batch.account_id, batch.id)
    if current.status == "validating":
        batches.transition(current, "in_progress")
