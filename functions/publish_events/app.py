"""The stream of ``Batches``: each status that a batch enters becomes one event on the stack's bus."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import bus
from nightshift.batches.record import Batch, batch_of
from nightshift.core import table
from nightshift.core.log import logger


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Takes DynamoDB stream records; returns the first that must be tried again, if any.

    A stream hands over every record after the one reported, so the order of a batch's events is kept.
    """
    records = [record for record in event["Records"] if _entered_status(record)]
    refused = bus.publish([_batch(record) for record in records])
    if refused is None:
        return {"batchItemFailures": []}
    logger.error("the bus refused an event")
    return {"batchItemFailures": [{"itemIdentifier": records[refused]["dynamodb"]["SequenceNumber"]}]}


def _entered_status(record: dict[str, Any]) -> bool:
    new = record["dynamodb"].get("NewImage", {}).get("status")
    return new is not None and new != record["dynamodb"].get("OldImage", {}).get("status")


def _batch(record: dict[str, Any]) -> Batch:
    batch = batch_of(table.decode(record["dynamodb"]["NewImage"]))
    logger.info("batch entered status", batch_id=batch.id, status=batch.status)
    return batch
