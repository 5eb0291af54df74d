"""Send the webhook of an ended batch again."""

import time

from nightshift.batches import store as batches
from nightshift.batches.events import status_event
from nightshift.core.errors import ConflictError
from nightshift.webhooks import deliveries, queue
from nightshift.webhooks.record import Delivery

# A delivery whose next try is overdue by so much has lost its message, and may be sent again.
LOST_DELIVERY_SECONDS = 900


def redeliver(account_id: str, batch_id: str, delivery_id: str) -> Delivery:
    """Start a new round of tries, with the same id and the same body, and return the delivery.

    Raises:
        NotFoundError: the account has no such batch, or the batch no such delivery.
        ConflictError: ``delivery_pending``: a try is still to come.
    """
    batch = batches.get(account_id, batch_id)
    delivery = deliveries.get(batch_id, delivery_id)
    due = delivery.next_attempt_at or delivery.created_at
    now = time.time()
    if delivery.state == "pending" and due > now - LOST_DELIVERY_SECONDS:
        message = "The delivery is still pending; next_attempt_at is the time of the next try."
        raise ConflictError(message, code="delivery_pending", param="delivery_id")
    restarted = deliveries.put(delivery.restarted(int(now)))
    # An ended batch never changes, so this event has the id and the body of the first one.
    queue.enqueue(status_event(batch))
    return restarted
