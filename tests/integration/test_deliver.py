"""The use case of one delivery, with a sender and a clock of the test's own."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from nightshift.core import aws, settings
from nightshift.webhooks import deliveries, queue
from nightshift.webhooks.deliver import deliver
from nightshift.webhooks.outcome import Outcome
from nightshift.webhooks.queue import Message
from nightshift.webhooks.record import Attempt, Delivery

from tests.integration.support import Caller, sample

NOW = 1_800_000_000
URL = "https://hooks.example.com/"


class Sender:
    """Returns ``outcome`` for every webhook, and keeps what was sent."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.sent: list[tuple[str, bytes, Mapping[str, str]]] = []

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        self.sent.append((url, body, headers))
        return self.outcome


@pytest.fixture
def message(alice: Caller) -> Message:
    """The sample's event, for alice, received from the queue."""
    body: dict[str, Any] = json.loads(sample("deliver_webhook")["Records"][0]["body"])
    body["detail"]["account_id"] = alice.account_id
    body["detail"]["batch"]["callback_url"] = URL
    sqs, url = aws.client("sqs"), settings.webhook_queue_url()
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))
    [found] = sqs.receive_message(QueueUrl=url)["Messages"]
    return queue.message_of(
        {"messageId": found["MessageId"], "receiptHandle": found["ReceiptHandle"], "body": found["Body"]}
    )


def delivered(message: Message, outcome: Outcome) -> tuple[bool, Delivery]:
    """Whether the delivery is over after one try with this outcome, and its record."""
    over = deliver(message, send=Sender(outcome), clock=lambda: NOW)
    [delivery] = deliveries.of_batch(message.event.batch_id)
    return over, delivery


def test_an_accepted_webhook_succeeds(message: Message) -> None:
    over, delivery = delivered(message, Outcome(status=204))
    assert (over, delivery.state, delivery.next_attempt_at) == (True, "succeeded", None)
    assert delivery.attempts == (Attempt(attempted_at=NOW, status_code=204, error=None),)


def test_a_failed_try_is_postponed(message: Message) -> None:
    over, delivery = delivered(message, Outcome(error="timeout", retry_after=60))
    assert (over, delivery.state, delivery.next_attempt_at) == (False, "pending", NOW + 60)
    assert delivery.attempts == (Attempt(attempted_at=NOW, status_code=None, error="timeout"),)


def test_the_webhook_is_signed_by_the_clock(message: Message) -> None:
    sender = Sender(Outcome(status=200))
    deliver(message, send=sender, clock=lambda: NOW)
    [(url, body, headers)] = sender.sent
    assert (url, headers["webhook-id"], headers["webhook-timestamp"]) == (URL, message.event.id, str(NOW))
    assert json.loads(body)["data"] == message.event.batch


def test_a_succeeded_delivery_is_not_sent(message: Message) -> None:
    delivered(message, Outcome(status=200))
    sender = Sender(Outcome(status=500))
    assert deliver(message, send=sender, clock=lambda: NOW)
    assert sender.sent == []
