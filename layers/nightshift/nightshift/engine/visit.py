"""A visit of a worker at its chunk: one slice, and what Step Functions has to know of it; and a look in its place."""

import time

import msgspec

from nightshift.batches import executions, visits
from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.batches.visit import Outcome, Visit
from nightshift.chunks.chunk import Carry, SliceResult, Statistics
from nightshift.core.log import logger
from nightshift.engine import history, pauses
from nightshift.engine.slice import ask_provider, run_slice
from nightshift.input.plan import Task


def visit(task: Task, retries: int, seconds: float) -> tuple[SliceResult, int]:
    """Work on the task's chunk for at most ``seconds``; how that ended, and the events of the execution's history.

    ``retries`` is how often Step Functions has tried this visit before.
    """
    began_at = round(time.time(), 3)
    events = history.after_visit(task.slice.get("events", 0), retries)
    batch = batches.get(task.account_id, task.batch_id)
    if task.execution not in (None, batch.execution):
        return SliceResult("done"), events  # another execution has taken this one's place
    if task.execution is not None and batch.is_asleep(began_at):
        executions.unpark(batch)
    batch = _begun(batch)
    carry = _carry(task)
    if history.is_full(events):
        return _park(task, batch, SliceResult("park", 0, carry)), events
    visit = Visit(chunk=task.chunk, began_at=began_at, attempt=retries + 1)
    _record(task.batch_id, visit)
    result = run_slice(task, carry, batch, seconds)
    if result.state == "park":
        result = _park(task, batch, result)
    _record(task.batch_id, _ended(visit, result))
    return result, events


def look(task: Task, seconds: float) -> None:
    """Visit the provider of a batch of one chunk whose execution sleeps, and wake the batch if that may end (ADR 24).

    Should this fail, a later sweep has it tried again.
    """
    visit = Visit(chunk=task.chunk, began_at=round(time.time(), 3))
    batch = batches.get(task.account_id, task.batch_id)
    if batch.execution != task.execution or not batch.is_asleep(visit.began_at):
        return
    result = ask_provider(task, batch, seconds) or SliceResult("more")
    _record(task.batch_id, _ended(visit, result))
    now = time.time()
    if result.look_seconds is not None:
        executions.put_look(batch, int(now) + result.look_seconds)
    elif batch.is_asleep(now):
        executions.wake(batch, task, is_done=result.state == "done")


def _ended(visit: Visit, result: SliceResult) -> Visit:
    """The visit after its slice."""
    now, did = round(time.time(), 3), result.did or Statistics()
    waits = result.state in ("wait", "park") and result.wait_seconds > 0
    outcome: Outcome = "waits" if waits else "done" if result.state == "done" else "more"
    return msgspec.structs.replace(
        visit,
        ended_at=now,
        outcome=outcome,
        waits_until=now + (result.look_seconds or result.wait_seconds) if waits else None,
        waits_for=result.waits_for if waits else None,
        requests_sent=did.sent,
        requests_retried=did.retried,
        requests_refused=did.refused,
    )


def _record(batch_id: str, visit: Visit) -> None:
    """Record the visit for the batch's timeline. Its work does not depend on it."""
    try:
        visits.put(batch_id, visit)
    except Exception:
        logger.exception("visit not recorded")


def _begun(batch: Batch) -> Batch:
    """The batch in progress, if it may be: one that its create call has validated comes here without ValidateBatch, and
    the call may have been killed before it could say so."""
    if batch.status != "validating" or batch.is_open_to_work or batch.plan is None or time.time() >= batch.expires_at:
        return batch
    return batches.transition(batch, "in_progress") or batches.get(batch.account_id, batch.id)


def _carry(task: Task) -> Carry:
    """What the last slice handed on: in this execution, or before its chunk was parked."""
    if "carry" in task.slice:
        return msgspec.convert(task.slice["carry"], Carry, str_keys=True)
    kept = batches.carry(task.batch_id, task.chunk)
    return msgspec.json.decode(kept, type=Carry) if kept else Carry()


def _park(task: Task, batch: Batch, result: SliceResult) -> SliceResult:
    """Keep the carry for another execution, and record a long wait, from which a cancel wakes the batch."""
    seconds = max(0, min(result.wait_seconds, batch.works_until - int(time.time())))
    batches.put_carry(task.batch_id, task.chunk, msgspec.json.encode(result.carry).decode())
    if batch.status == "cancelling":
        seconds = min(seconds, pauses.SHORTEST)  # nothing wakes it again
    look_at = result.look_seconds and int(time.time()) + result.look_seconds
    waits = seconds > pauses.SHORTEST and task.execution is not None
    if waits and not executions.park(batch, int(time.time()) + seconds, look_at):
        return msgspec.structs.replace(result, state="more", wait_seconds=0)  # it was cancelled meanwhile
    return msgspec.structs.replace(result, wait_seconds=seconds)
