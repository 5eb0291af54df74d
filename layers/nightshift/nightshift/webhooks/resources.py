"""Deliveries of webhooks as the API shows them."""

from typing import Any

import msgspec

from nightshift.webhooks.record import Delivery


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """A delivery with all of its attempts."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "url": delivery.url,
        "status": delivery.state,
        "created_at": delivery.created_at,
        "next_attempt_at": delivery.next_attempt_at,
        "attempts": msgspec.to_builtins(list(delivery.attempts)),
    }
