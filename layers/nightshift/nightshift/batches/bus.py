"""The stack's EventBridge bus: each status that a batch enters is one event on it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from nightshift.batches.events import SOURCE, detail_type, status_event
from nightshift.batches.record import Batch
from nightshift.core import aws, settings

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef as Entry

# What one PutEvents takes: ten entries, and 256 KiB with what surrounds their details.
_MAX_ENTRIES = 10
_MAX_BYTES = 256 * 1024
_ENVELOPE_BYTES = 512


def publish(batches: Sequence[Batch]) -> int | None:
    """Publish the status of each batch, in order. Returns the index of the first that the bus refused, if any."""
    start = 0
    for entries in _groups(list(map(_entry, batches))):
        results = aws.client("events").put_events(Entries=entries)["Entries"]
        refused = next((index for index, result in enumerate(results) if "ErrorCode" in result), None)
        if refused is not None:
            return start + refused
        start += len(entries)
    return None


def _entry(batch: Batch) -> "Entry":
    return {
        "EventBusName": settings.event_bus(),
        "Source": SOURCE,
        "DetailType": detail_type(batch.status),
        "Detail": msgspec.json.encode(status_event(batch)).decode(),
        "Resources": [batch.id],
    }


def _groups(entries: "Sequence[Entry]") -> "Iterator[list[Entry]]":
    """``entries`` in groups that one PutEvents takes, in order."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        more = len(entry["Detail"].encode()) + _ENVELOPE_BYTES
        if group and (len(group) == _MAX_ENTRIES or size + more > _MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(entry)
        size += more
    if group:
        yield group
