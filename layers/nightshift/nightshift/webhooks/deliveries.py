"""The deliveries of webhooks, in the table ``Batches``: pk the batch, sk ``delivery#<id>``.

A batch ends once, so it has at most one delivery. The delivery's id depends on the event's id alone.
"""

import time

import msgspec

from nightshift.core.errors import NotFoundError
from nightshift.core.ids import derived_id
from nightshift.core.table import Item, Table
from nightshift.webhooks.message import Event
from nightshift.webhooks.record import Delivery

_BATCHES = Table("batches")


def begin(event: Event, url: str) -> Delivery:
    """The delivery of ``event``: the one that exists, or a new one to ``url``."""
    new = Delivery(
        batch_id=event.batch_id,
        id=_id_of(event),
        event_id=event.id,
        event_type=event.type,
        url=url,
        state="pending",
        created_at=int(time.time()),
    )
    if _BATCHES.put(_item(new), condition="attribute_not_exists(pk)"):
        return new
    return get(new.batch_id, new.id)


def find(event: Event) -> Delivery | None:
    """The delivery of ``event``; None where none has begun."""
    found = _BATCHES.get(event.batch_id, _sort_key(_id_of(event)), consistent=True)
    return msgspec.convert(found, Delivery) if found else None


def get(batch_id: str, delivery_id: str) -> Delivery:
    """The batch's delivery with this id.

    Raises:
        NotFoundError: the batch has no such delivery.
    """
    # DynamoDB limits the length of a key, so only an id of our own length is looked up.
    found = _BATCHES.get(batch_id, _sort_key(delivery_id), consistent=True) if len(delivery_id) < 64 else None
    if found is None:
        raise NotFoundError("Webhook delivery not found.", code="delivery_not_found", param="delivery_id")
    return msgspec.convert(found, Delivery)


def of_batch(batch_id: str) -> list[Delivery]:
    """The batch's deliveries."""
    found = _BATCHES.query("pk = :batch_id AND begins_with(sk, :prefix)", batch_id=batch_id, prefix=_sort_key(""))
    return msgspec.convert(list(found), list[Delivery])


def put(delivery: Delivery) -> Delivery:
    """Record the delivery as it is now, and return it."""
    _BATCHES.put(_item(delivery))
    return delivery


def _id_of(event: Event) -> str:
    return derived_id("whd", event.id)


def _sort_key(delivery_id: str) -> str:
    return f"delivery#{delivery_id}"


def _item(delivery: Delivery) -> Item:
    return {"sk": _sort_key(delivery.id), **msgspec.to_builtins(delivery)}
