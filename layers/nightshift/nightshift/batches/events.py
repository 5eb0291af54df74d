"""The events that the stack tells of a batch: one for each status it enters."""

from typing import Any

from nightshift.batches.resources import batch_object
from nightshift.batches.status import Status, timestamp_field
from nightshift.core.ids import derived_id

SOURCE = "nightshift"
# Of the shape of ``detail``: raised when something is taken away or changes its meaning; additions do not raise it.
VERSION = "1"


def status_event(batch: dict[str, Any]) -> dict[str, Any]:
    """The ``detail`` of the event that says which status ``batch`` (an item) has entered.

    Its id depends on the batch and the status alone, and a status is entered once: whoever sees the id twice
    has seen the same event twice.
    """
    status: Status = batch["status"]
    return {
        "version": VERSION,
        "id": derived_id("evt", batch["sk"], status),
        "account_id": batch["pk"],
        "created_at": batch[timestamp_field(status) or "created_at"],
        "batch": batch_object(batch),
    }


def detail_type(status: Status) -> str:
    return f"batch.{status}"
