"""The events of a batch on the stack's bus: one for each status that it enters."""

from typing import Annotated

from msgspec import Meta, Struct

from nightshift.batches.record import Batch
from nightshift.batches.resources import BatchResource, batch_object
from nightshift.batches.status import Status
from nightshift.core.ids import derived_id

SOURCE = "nightshift"
# The version of ``detail``'s shape. It rises when a field is removed or changes its meaning, not when one is added.
VERSION = "1"


class StatusEvent(Struct, frozen=True, kw_only=True):
    """The ``detail`` of an event."""

    version: Annotated[str, Meta(description="Of the shape of `detail`.", extra_json_schema={"const": VERSION})] = (
        VERSION
    )
    id: Annotated[str, Meta(description="One for each status that a batch enters, however often the event comes.")]
    account_id: str
    created_at: Annotated[int, Meta(description="When the batch entered the status, in seconds since 1970.")]
    batch: Annotated[BatchResource, Meta(description="The batch object of the API as it was then.")]


def status_event(batch: Batch) -> StatusEvent:
    """The event of the status that ``batch`` has entered.

    Its id depends on the batch and the status alone, and a batch enters a status once: two events with one id are the
    same event.
    """
    return StatusEvent(
        id=derived_id("evt", batch.id, batch.status),
        account_id=batch.account_id,
        created_at=batch.entered_at(batch.status) or batch.created_at,
        batch=batch_object(batch),
    )


def detail_type(status: Status) -> str:
    return f"batch.{status}"
