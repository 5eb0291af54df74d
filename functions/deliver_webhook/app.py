"""One try to deliver each terminal event; the queue brings back what is to be tried again."""

import json
import random
import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core import aws, settings
from nightshift.core.log import logger
from nightshift.webhooks import deliveries
from nightshift.webhooks import sender as webhooks


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes SQS records, each an EventBridge event; answers with those to be tried again.

    A record's next try is set by its visibility timeout, so waiting costs nothing. After the last one it goes to the
    dead-letter queue.
    """
    failures = [{"itemIdentifier": record["messageId"]} for record in event["Records"] if not _deliver(record)]
    return {"batchItemFailures": failures}


def _deliver(record: dict[str, Any]) -> bool:
    """Try once. Whether the queue may forget the record."""
    event = json.loads(record["body"])
    detail = event["detail"]
    logger.append_keys(batch_id=detail["batch"]["id"], event_id=detail["id"])
    receiver = webhooks.receiver(detail["account_id"])
    url = detail["batch"]["callback_url"] or receiver.url
    if url is None:
        deliveries.withdraw(detail)
        return True
    delivery = deliveries.begin(detail, url)
    if delivery["state"] == "failed" and event.get("dead_letter"):
        delivery = deliveries.restart(delivery)
    if delivery["state"] != "pending":
        logger.info("webhook was delivered before", delivery_id=delivery["id"], state=delivery["state"])
        return True
    attempt = webhooks.deliver(detail, url, receiver)
    tries = delivery["tries"] + 1
    delay = webhooks.next_delay(attempt, tries, settings.webhook_delays(), random.random())
    state = "pending" if delay is not None else "succeeded" if attempt.taken else "failed"
    if state == "failed" and not attempt.gone:
        # Before the try is written down, so that a crash between the two makes two letters and not none. The mark is
        # for an operator who moves the letter back: to the queue it is like one that comes twice.
        letter = json.dumps({**event, "dead_letter": True}, ensure_ascii=False)
        aws.client("sqs").send_message(QueueUrl=settings.webhook_dead_letters_url(), MessageBody=letter)
    deliveries.record(delivery, url, attempt, state, None if delay is None else int(time.time()) + delay)
    logger.info("webhook tried", tries=tries, status=attempt.status, error=attempt.error, state=state, delay=delay)
    if delay is not None:
        aws.client("sqs").change_message_visibility(
            QueueUrl=settings.webhook_queue_url(), ReceiptHandle=record["receiptHandle"], VisibilityTimeout=delay
        )
        return False
    return True
