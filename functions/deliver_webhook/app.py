"""One try to deliver each terminal event; the queue brings back what is to be tried again."""

import json
import random
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift import aws, settings, webhooks
from nightshift.log import logger

# SQS hides a message for at most 12 hours, counted from when it was received.
MAX_DELAY_SECONDS = 12 * 3600 - 30


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes SQS records, each an EventBridge event; answers with those to be tried again.

    A record's next try is set by its visibility timeout, so waiting costs nothing; after the last one the queue
    moves it to the dead-letter queue.
    """
    failures = [{"itemIdentifier": record["messageId"]} for record in event["Records"] if not _deliver(record)]
    return {"batchItemFailures": failures}


def _deliver(record: dict[str, Any]) -> bool:
    """Whether the delivery is over, well or not at all."""
    detail = json.loads(record["body"])["detail"]
    attempt = webhooks.deliver(detail["account_id"], detail)
    if attempt is None:
        return True
    tries = int(record["attributes"]["ApproximateReceiveCount"])
    logger.info(
        "webhook tried",
        batch_id=detail["batch"]["id"],
        event_id=detail["id"],
        tries=tries,
        status=attempt.status,
        error=attempt.error,
    )
    if attempt.over:
        return True
    delays = settings.webhook_delays()
    delay = delays[min(tries, len(delays)) - 1]
    aws.client("sqs").change_message_visibility(
        QueueUrl=settings.webhook_queue_url(),
        ReceiptHandle=record["receiptHandle"],
        # A tenth of jitter, so that a receiver that comes back is not met by all at once.
        VisibilityTimeout=min(MAX_DELAY_SECONDS, round(delay * random.uniform(1.0, 1.1))),
    )
    return False
