"""Cancel a batch."""

from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.batches.status import TERMINAL


def cancel(account_id: str, batch_id: str) -> Batch:
    """Move the batch to ``cancelling``; one that is cancelling or has ended is returned as it is.

    Raises:
        NotFoundError: there is no such batch.
    """
    while True:
        batch = batches.get(account_id, batch_id)
        if batch.status == "cancelling" or batch.status in TERMINAL:
            return batch
        cancelled = batches.transition(batch, "cancelling")
        if cancelled is not None:
            return cancelled
