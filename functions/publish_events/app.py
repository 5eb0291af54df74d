"""The stream of ``Batches``: each status that a batch enters becomes one event on the stack's bus."""

from collections.abc import Iterator
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches.events import SOURCE, detail_type, status_event
from nightshift.core import aws, settings
from nightshift.core.log import logger

# What one PutEvents takes: ten entries, and 256 KiB with what is around their details.
_AT_ONCE = 10
_BYTES_AT_ONCE = 256 * 1024
_ENVELOPE_BYTES = 512


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes DynamoDB stream records; answers with the first that must be tried again, if any.

    A stream hands over every record after the one reported, so the order of a batch's events is kept.
    """
    entries = [(record, _entry(record)) for record in event["Records"] if _entered_status(record)]
    for group in _groups(entries):
        answer = aws.client("events").put_events(Entries=[entry for _, entry in group])
        for (record, _), result in zip(group, answer["Entries"], strict=True):
            if "ErrorCode" in result:
                logger.error("event not taken by the bus", error_code=result["ErrorCode"])
                return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
    return {"batchItemFailures": []}


def _groups(entries: list[tuple[Any, Any]]) -> Iterator[list[tuple[Any, Any]]]:
    """``entries`` in groups that one PutEvents takes, in order."""
    group: list[tuple[Any, Any]] = []
    size = 0
    for record, entry in entries:
        more = len(entry["Detail"].encode()) + _ENVELOPE_BYTES
        if group and (len(group) == _AT_ONCE or size + more > _BYTES_AT_ONCE):
            yield group
            group, size = [], 0
        group.append((record, entry))
        size += more
    if group:
        yield group


def _entered_status(record: dict[str, Any]) -> bool:
    new = record["dynamodb"].get("NewImage", {}).get("status")
    return new is not None and new != record["dynamodb"].get("OldImage", {}).get("status")


def _entry(record: dict[str, Any]) -> Any:
    batch = aws.plain(record["dynamodb"]["NewImage"])
    logger.info("batch entered status", batch_id=batch["sk"], status=batch["status"])
    return {
        "EventBusName": settings.event_bus(),
        "Source": SOURCE,
        "DetailType": detail_type(batch["status"]),
        "Detail": msgspec.json.encode(status_event(batch)).decode(),
        "Resources": [batch["sk"]],
    }
