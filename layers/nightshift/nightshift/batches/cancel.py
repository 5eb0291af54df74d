"""Cancel a batch."""

import time

from nightshift.batches import executions
from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.batches.status import TERMINAL
from nightshift.core.log import logger


def cancel(account_id: str, batch_id: str) -> Batch:
    """Move the batch to ``cancelling``; one that is cancelling or has ended is returned as it is.

    A batch whose execution waits is woken, so that it ends soon.

    Raises:
        NotFoundError: there is no such batch.
    """
    while True:
        batch = batches.get(account_id, batch_id)
        if batch.status == "cancelling" or batch.status in TERMINAL:
            return batch
        cancelled = batches.transition(batch, "cancelling")
        if cancelled is not None:
            if cancelled.is_asleep(time.time()):
                _wake(cancelled)
            return cancelled


def _wake(batch: Batch) -> None:
    try:
        executions.wake(batch)
    except Exception:
        # The cancel is recorded, and the sweep wakes the batch.
        logger.exception("batch not woken", batch_id=batch.id)
