"""Batches that nobody works on: lost starts are started, and what is overdue or abandoned is ended."""

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
    """How many batches were started, were ended, and could be neither because of an error."""

    started: int = 0
    ended: int = 0
    failed: int = 0


def sweep(now: int) -> Swept:
    """Look once at every open batch. ``now`` is in seconds since 1970."""
    found = batches.open_of_all(created_before=now - LOST_AFTER_SECONDS)
    oldest = min((batch.created_at for batch in found), default=now)
    count({"OpenBatches": len(found), "OldestOpenBatchSeconds": now - oldest})
    # In a random order: should one batch end this invocation, those behind it are met by a later sweep.
    random.shuffle(found)
    swept = Swept()
    # One list of a thousand executions a call, in place of a call for each batch.
    running = executions.running() if found else set()
    for batch in found:
        try:
            action = _tend(batch, now, running)
        except Exception:
            # The others are swept all the same, and the next sweep meets this one again.
            swept.failed += 1
            logger.exception("batch not swept", batch_id=batch.id)
            continue
        if action == "started":
            swept.started += 1
        elif action == "ended":
            swept.ended += 1
    return swept


def _tend(batch: OpenBatch, now: int, running: set[str]) -> Action | None:
    """Start or end the batch where nothing else does; ``running`` are the batches with a running execution."""
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
    """Whether the batch should have ended long ago, whatever its execution does: a Map may wait for a place to run."""
    if batch.status == "cancelling":
        cancelling_at = batches.get(batch.account_id, batch.id).cancelling_at or now
        return cancelling_at + CANCELLING_SECONDS < now
    return batch.expires_at + OVERDUE_SECONDS < now
