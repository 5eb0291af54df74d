"""While lines are unfinished and time is left, the batch goes on (ADR 10).

The chunks are run in rounds. After a round FinalizeBatch starts another one, after a pause, or ends the batch. After a
long pause one chunk goes first, as a scout, and the others follow when there is room. When an execution itself fails,
another one follows.
"""

import time
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from nightshift.batches import executions, visits
from nightshift.batches import store as batches
from nightshift.batches.executions import ExecutionStatus
from nightshift.batches.record import Batch
from nightshift.batches.status import TERMINAL
from nightshift.batches.visit import Visit
from nightshift.core.log import logger
from nightshift.engine import history, pauses
from nightshift.engine.finalize import finalize
from nightshift.engine.settlement import Standing
from nightshift.input.plan import Task
from nightshift.results import store as results

STOPPED = "The batch was stopped by its operator."


class ChunkEnd(msgspec.Struct, frozen=True):
    """How a chunk ended a round. Step Functions may report one that failed in any shape."""

    state: str | None = "failed"
    wait_seconds: int = 0
    events: int = 0


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the chunks of a batch, or of one of them as a ``scout``, as the state machine tells it.

    ``failures`` counts the rounds in a row, before this one, in which a chunk failed. ``only_chunk`` is the chunk that
    ran without the Map, with the state None if there was none, and the events of the execution's history.
    """

    account_id: str
    batch_id: str
    execution: int
    failures: int
    only_chunk: ChunkEnd
    chunks: list[ChunkEnd]
    scout: bool = False

    def ends(self, count: int) -> list[ChunkEnd]:
        """How each of the batch's ``count`` chunks ended. One of which nothing is known has failed."""
        if self.scout and not self.chunks:
            return [replace(self.only_chunk, state="park")]  # the others wait until it has come back
        known = self.chunks or ([self.only_chunk] if self.only_chunk.state else [])
        return known + [ChunkEnd()] * (count - len(known))


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a round: another one after ``wait_seconds`` if ``goes_on``, else the end of the execution."""

    account_id: str
    batch_id: str
    execution: int
    failures: int
    events: int
    status: str
    goes_on: bool = False
    wait_seconds: int = 0


def after(done: Round) -> Next:
    """Decide what follows the round, and end the batch if nothing does.

    Raises:
        NotFoundError: there is no such batch.
    """
    batch = batches.get(done.account_id, done.batch_id)
    ends = done.ends(batch.plan.chunks if batch.plan else int(batch.status == "validating"))
    following = Next(
        account_id=batch.account_id,
        batch_id=batch.id,
        execution=done.execution,
        failures=done.failures + 1 if any(end.state == "failed" for end in ends) else 0,
        events=done.only_chunk.events + history.ROUND_EVENTS,
        status=batch.status,
    )
    if batch.status in TERMINAL or batch.execution != done.execution:
        return following
    pause = pause_after(ends, following.failures)
    seconds_left = batch.works_until - int(time.time())
    if pause is None or seconds_left <= 0 or not _is_unfinished(batch):
        return replace(following, status=finalize(batch.account_id, batch.id).status)
    pause = min(pause, seconds_left)
    following = _go_on(batch, following, pause)
    _record_failures(batch, done, pause)
    return following


def scout_of(batch: Batch, tasks: Sequence[Task], waited_seconds: int, failures: int) -> Task | None:
    """The chunk that goes first; None if all may go, because the pause was short or is not the route's matter.

    A day of waiting would cost 40 times as much if each of 40 chunks looked whether there is room.
    """
    if len(tasks) < 2 or waited_seconds <= pauses.SHORTEST or failures or batch.status != "in_progress":
        return None
    if batch.plan is None or batch.plan.route.mode == "batch":
        return None
    for task in tasks:
        if None in results.read_seals(batch.id, task.segments):
            return replace(task, scout=True)
    return None


def pause_after(ends: Sequence[ChunkEnd], failures: int) -> int | None:
    """Seconds until the chunks are run again: what the first of them to go on asks for; None if each is done."""
    pauses_asked = [max(1, end.wait_seconds) for end in ends if end.state == "park"]
    if failures:
        pauses_asked.append(pauses.after_failures(failures))
    return min(pauses_asked, default=None)


def _is_unfinished(batch: Batch) -> bool:
    """Whether another round may help. A chunk of a cancelled batch may have results to collect."""
    if not batch.is_open_to_work:
        return batch.status == "validating"
    return batch.status == "cancelling" or Standing.read(batch).unfinished


def _record_failures(batch: Batch, done: Round, pause: int) -> None:
    """Put the chunks that failed in every attempt into the batch's timeline. Nothing else depends on it.

    Of a scout, and of a Map that failed as a whole, it is not known which chunk that was.
    """
    ends = done.ends(0)
    if done.scout or batch.plan is None or len(ends) != batch.plan.chunks:
        return
    now = round(time.time(), 3)
    try:
        for chunk, end in enumerate(ends):
            if end.state == "failed":
                failed = Visit(chunk=chunk, began_at=now, ended_at=now, outcome="failed", waits_until=now + pause)
                visits.put(batch.id, failed)
    except Exception:
        logger.exception("failure not recorded", batch_id=batch.id)


def _go_on(batch: Batch, following: Next, seconds: int) -> Next:
    if batch.status == "cancelling":
        # Nothing wakes it again, and a chunk may have asked for a long pause just before the cancel.
        seconds = min(seconds, pauses.SHORTEST)
    if history.is_full(following.events):
        executions.follow(batch, seconds)
        return following
    if seconds > pauses.SHORTEST and not executions.park(batch, int(time.time()) + seconds):
        seconds = 1  # it was cancelled meanwhile
    return replace(following, goes_on=True, wait_seconds=seconds)


def execution_ended(account_id: str, batch_id: str, number: int, status: ExecutionStatus) -> Batch:
    """The batch's execution ``number`` has ended with ``status``. Unless the batch has ended too, start another
    execution, or end the batch at its deadline or if its operator stopped it. Returns the batch as it is then.

    Raises:
        NotFoundError: there is no such batch.
    """
    batch = batches.get(account_id, batch_id)
    if batch.status in TERMINAL or batch.execution != number:
        return batch
    seconds_left = batch.works_until - int(time.time())
    if status == "ABORTED" or seconds_left <= 0:
        return finalize(account_id, batch_id, STOPPED if status == "ABORTED" else None)
    executions.follow(batch, min(pauses.after_failures(number + 1), seconds_left))
    return batch
