"""The queue of webhooks in SQS: a message is one event, and its visibility timeout is the time of its next try."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nightshift.core import aws, settings
from nightshift.webhooks.message import Event

# For reading all dead letters; after that, who read them has given back or deleted each.
_READING_SECONDS = 120


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the queue. ``body`` is the bus's event as it came, and ``event`` its ``detail``.

    ``is_redriven`` marks a dead letter that an operator has moved back to the queue.
    """

    id: str
    receipt_handle: str
    body: str
    event: Event
    is_redriven: bool = False


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: a webhook that no receiver took. ``sent_at`` is when it was given up."""

    receipt_handle: str
    body: str
    event: Event
    sent_at: int


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


def dead_letters() -> list[Letter]:
    """Every dead letter, or as many as can be read in a minute. They are hidden from other readers until they are given
    back, or ``_READING_SECONDS`` over."""
    letters: dict[str, Letter] = {}
    give_up_at = time.monotonic() + _READING_SECONDS / 2
    while True:
        found = aws.client("sqs").receive_message(
            QueueUrl=settings.webhook_dead_letters_url(),
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,  # asks all of SQS's servers, so that nothing means that there is nothing
            VisibilityTimeout=_READING_SECONDS,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        messages = found.get("Messages", [])
        for message in messages:
            letters[message["MessageId"]] = Letter(
                receipt_handle=message["ReceiptHandle"],
                body=message["Body"],
                event=msgspec.json.decode(message["Body"], type=_Body).detail,
                sent_at=int(message["Attributes"]["SentTimestamp"]) // 1000,
            )
        # Of very many, the first come round again before the last is read.
        if not messages or time.monotonic() > give_up_at:
            return list(letters.values())


def give_back(letters: Iterable[Letter]) -> None:
    """Let other readers see the dead letters again."""
    for letter in letters:
        try:
            aws.client("sqs").change_message_visibility(
                QueueUrl=settings.webhook_dead_letters_url(), ReceiptHandle=letter.receipt_handle, VisibilityTimeout=0
            )
        except Exception as error:
            if not aws.error_code(error).endswith("MessageNotInflight"):
                raise  # that one can be seen again already


def forget(letter: Letter) -> None:
    """Delete a dead letter."""
    aws.client("sqs").delete_message(QueueUrl=settings.webhook_dead_letters_url(), ReceiptHandle=letter.receipt_handle)


def redrive(letter: Letter) -> None:
    """Move a dead letter back to the queue: all of its tries begin anew."""
    aws.client("sqs").send_message(QueueUrl=settings.webhook_queue_url(), MessageBody=letter.body)
    forget(letter)
