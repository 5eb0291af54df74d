"""The queue of webhooks in SQS: a message is one event, and its visibility timeout is the time of its next try."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from nightshift.core import aws, settings
from nightshift.webhooks.message import Event


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the queue. ``body`` is the bus's event as it came, and ``event`` its ``detail``.

    ``is_redriven`` marks a dead letter that an operator has moved back to the queue.
    """

    id: str
    receipt_handle: str
    body: str
    event: Event
    is_redriven: bool = False


class _Body(msgspec.Struct, frozen=True):
    detail: Event
    dead_letter: bool = False


def message_of(record: Mapping[str, Any]) -> Message:
    """The message in an SQS record of a Lambda event."""
    body = msgspec.json.decode(record["body"], type=_Body)
    return Message(
        id=record["messageId"],
        receipt_handle=record["receiptHandle"],
        body=record["body"],
        event=body.detail,
        is_redriven=body.dead_letter,
    )


def enqueue(event: object) -> None:
    """Send an event, which has the fields of ``Event``, to the queue as the bus would."""
    body = msgspec.json.encode({"detail": event}).decode()
    aws.client("sqs").send_message(QueueUrl=settings.webhook_queue_url(), MessageBody=body)


def postpone(message: Message, seconds: int) -> None:
    """Hide the message for ``seconds`` from now on; then the queue delivers it again."""
    aws.client("sqs").change_message_visibility(
        QueueUrl=settings.webhook_queue_url(), ReceiptHandle=message.receipt_handle, VisibilityTimeout=seconds
    )


def send_dead_letter(message: Message) -> None:
    """Send the message to the dead-letter queue, marked as a dead letter."""
    letter = json.dumps({**json.loads(message.body), "dead_letter": True}, ensure_ascii=False)
    aws.client("sqs").send_message(QueueUrl=settings.webhook_dead_letters_url(), MessageBody=letter)
