"""The stream of ``Batches``: each status that a batch enters becomes one event on the stack's bus."""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift import aws, settings
from nightshift.events import SOURCE, detail_type, status_event
from nightshift.log import logger

# PutEvents takes ten at a time.
_AT_ONCE = 10


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes DynamoDB stream records; answers with the first that must be tried again, if any.

    A stream hands over every record after the one reported, so the order of a batch's events is kept.
    """
    records = [record for record in event["Records"] if _entered_status(record)]
    for start in range(0, len(records), _AT_ONCE):
        group = records[start : start + _AT_ONCE]
        answer = aws.client("events").put_events(Entries=[_entry(record) for record in group])
        for record, result in zip(group, answer["Entries"], strict=True):
            if "ErrorCode" in result:
                logger.error("event not taken by the bus", error_code=result["ErrorCode"])
                return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
    return {"batchItemFailures": []}


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
        "Detail": json.dumps(status_event(batch), ensure_ascii=False),
        "Resources": [batch["sk"]],
    }
