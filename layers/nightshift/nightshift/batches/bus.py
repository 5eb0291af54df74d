"""The stack's EventBridge bus: each status that a batch enters is one event on it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from nightshift.batches.events import SOURCE, detail_type, status_event
from nightshift.batches.record import Batch
from nightshift.core import aws, settings
from nightshift.core.log import logger

if TYPE_CHECKING:
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef as Entry

# What one PutEvents takes: ten entries, and 256 KiB with what surrounds their details.
_MAX_ENTRIES = 10
_MAX_BYTES = 256 * 1024
_ENVELOPE_BYTES = 512


# Errors of an entry that are the same at every repetition (AWS: "PutEvents", common errors of entries).
_PERMANENT = frozenset({"InvalidArgument", "MalformedDetail"})


def publish(batches: Sequence[Batch]) -> int | None:
    """Publish the status of each batch, in order. Returns the index of the first that has to be tried again, if any.

    An event that the bus refuses for good goes to a dead-letter queue, so that it does not delay the others.
    """
    start = 0
    for entries in _groups(list(map(_entry, batches))):
        results = aws.client("events").put_events(Entries=entries)["Entries"]
        for index, (entry, result) in enumerate(zip(entries, results, strict=True), start):
            code = result.get("ErrorCode")
            if code in _PERMANENT:
                logger.error("event refused for good", error_code=code, batch_id=entry["Resources"][0])
                aws.client("sqs").send_message(QueueUrl=settings.event_dead_letters_url(), MessageBody=entry["Detail"])
            elif code is not None:
                return index
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
