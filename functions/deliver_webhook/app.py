"""One try to deliver each webhook of the queue."""

import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.webhooks import queue, sender
from nightshift.webhooks.deliver import deliver


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Takes SQS records, each an EventBridge event; returns those that the queue keeps for another try."""
    kept = []
    for message in map(queue.message_of, event["Records"]):
        logger.append_keys(batch_id=message.event.batch_id, event_id=message.event.id)
        if not deliver(message, send=sender.post, clock=time.time):
            kept.append({"itemIdentifier": message.id})
    return {"batchItemFailures": kept}
