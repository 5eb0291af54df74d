"""Batches that no execution works on: lost starts are started, and overdue or abandoned batches are ended."""

import random
from dataclasses import dataclass
from typing import Literal

from nightshift.batches import executions
from nightshift.batches import store as batches
from nightshift.batches.record import OpenBatch
from nightshift.core.log import count, logger
from nightshift.engine.finalize import finalize

# A batch is created and started within seconds; an older one without an execution has lost its start.
LOST_AFTER_SECONDS = 120
# How long finalizing may take after the deadline, and after a cancel.
OVERDUE_SECONDS = 3600
CANCELLING_SECONDS = 900

Action = Literal["started", "ended"]


@dataclass(slots=True)
class Swept:
    """How many batches were started, how many were ended, and how many failed because of an error."""

    started: int = 0
    ended: int = 0
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
        except Exception:
            # The others are swept all the same, and the next sweep tries this one again.
            swept.failed += 1
            logger.exception("batch not swept", batch_id=batch.id)
            continue
        if action == "started":
            swept.started += 1
        elif action == "ended":
            swept.ended += 1
    return swept


def _tend(batch: OpenBatch, now: int, running: set[str]) -> Action | None:
    """Start or end the batch if nothing else does; ``running`` are the batches with a running execution."""
    late = _is_late(batch, now)
    if not late and batch.id in running:
        return None
    execution = None if late else executions.status(batch.id)
    if not late and execution == "RUNNING":
        return None
    if not late and execution is None:
        executions.start(batch.account_id, batch.id)
        logger.warning("lost batch started", batch_id=batch.id)
        return "started"
    # Its execution, or CloseAbandoned, should have ended it; a second end changes nothing.
    finalize(batch.account_id, batch.id)
    logger.warning("batch ended", batch_id=batch.id, late=late, execution_status=execution)
    return "ended"


def _is_late(batch: OpenBatch, now: int) -> bool:
    """Whether the batch should have ended long ago, even if its execution runs: a Map may wait for free concurrency."""
    if batch.status == "cancelling":
        cancelling_at = batches.get(batch.account_id, batch.id).cancelling_at or now
        return cancelling_at + CANCELLING_SECONDS < now
    return batch.expires_at + OVERDUE_SECONDS < now
