"""Batches that no execution works on are started again, and those that should have ended are ended. Providers that are
waited for are looked at."""

import random
import time
from typing import Literal

from msgspec import Struct

from nightshift.batches import executions, planning
from nightshift.batches import store as batches
from nightshift.batches.record import Batch, OpenBatch
from nightshift.batches.status import TERMINAL
from nightshift.core.errors import UnavailableError
from nightshift.core.log import count, logger
from nightshift.engine import rounds
from nightshift.engine.finalize import finalize

# A batch is created and started within seconds; an older one without an execution has lost its start.
LOST_AFTER_SECONDS = 120
# A look that has recorded nothing is lost after the 300 s that it may wait for a worker, and the longest invocation.
LOST_LOOK_SECONDS = 1_200
# How long finalizing may take after the deadline.
OVERDUE_SECONDS = 3600

Action = Literal["started", "ended", "looked"]


class Swept(Struct):
    """How many batches were started, how many were ended, how many a worker looks at, and how many failed because of an
    error."""

    started: int = 0
    ended: int = 0
    looked: int = 0
    failed: int = 0


def sweep(now: int) -> Swept:
    """Check every open batch once. ``now`` is in seconds since 1970."""
    found = batches.open_of_all(created_before=now - LOST_AFTER_SECONDS)
    oldest = min((batch.created_at for batch in found), default=now)
    count({"OpenBatches": len(found), "OldestOpenBatchSeconds": now - oldest})
    # In a random order, because one batch may end this invocation: a later sweep then reaches the others.
    random.shuffle(found)
    swept = Swept()
    # One call lists a thousand executions, which is cheaper than one call for each batch.
    running = executions.running() if found else set()
    for batch in found:
        try:
            action = _tend(batch, now, running)
        except UnavailableError:
            logger.info("batch of a later version left alone", batch_id=batch.id)
            continue
        except Exception:
            # The others are swept all the same, and the next sweep tries this one again.
            swept.failed += 1
            logger.exception("batch not swept", batch_id=batch.id)
            continue
        if action == "started":
            swept.started += 1
        elif action == "ended":
            swept.ended += 1
        elif action == "looked":
            swept.looked += 1
    return swept


def _tend(found: OpenBatch, now: int, running: set[str]) -> Action | None:
    """Start or end the batch if nothing else does; ``running`` are the names of the executions that run."""
    batch = batches.get(found.account_id, found.id)
    runs = executions.name_of(batch.id, batch.execution) in running
    if batch.status in TERMINAL:
        return None  # the index lags behind
    if _is_late(batch, now):
        finalize(batch.account_id, batch.id)
        logger.warning("late batch ended", batch_id=batch.id)
        return "ended"
    if runs and batch.status != "cancelling":
        return _look(batch) if batch.look_due(now) else None
    if runs:
        return "started" if _waits_for_nothing(batch, now) and executions.wake(batch) else None
    return _restart(batch, now)


def _is_late(batch: Batch, now: int) -> bool:
    """Whether the batch should have ended long ago, even if its execution runs: a Map may wait for free concurrency."""
    late_after = batch.works_until if batch.status == "cancelling" else batch.expires_at + OVERDUE_SECONDS
    return late_after < now


def _waits_for_nothing(batch: Batch, now: int) -> bool:
    """Whether the batch is cancelled and waits all the same, because its cancel could not wake it."""
    return batch.status == "cancelling" and batch.is_asleep(now)


def _look(batch: Batch) -> Action | None:
    """Have RunChunk look at the provider of a batch whose execution sleeps."""
    tasks = planning.tasks_of(batch)
    if len(tasks) != 1 or not executions.put_look(batch, int(time.time()) + LOST_LOOK_SECONDS):
        return None  # its input is gone, which its execution finds; or it sleeps no more
    executions.look_beside(batch, tasks[0])
    return "looked"


def _restart(batch: Batch, now: int) -> Action | None:
    """Start the batch's execution if its start was lost, or the next one if it has ended."""
    status = executions.status(batch)
    if status == "RUNNING":
        return None
    if status is None:
        pause = max(0, (batch.parked_until or 0) - now)
        executions.start(batch.account_id, batch.id, batch.execution, pause)
        logger.warning("lost batch started", batch_id=batch.id)
        return "started"
    # CloseAbandoned should have done this.
    batch = rounds.execution_ended(batch.account_id, batch.id, batch.execution, status)
    logger.warning("abandoned batch found", batch_id=batch.id, execution_status=status, status=batch.status)
    return "ended" if batch.status in TERMINAL else "started"
