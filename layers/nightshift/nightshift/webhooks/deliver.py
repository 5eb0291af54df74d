"""One try to deliver one webhook: send it, record the attempt, and say when the next one is due."""

import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

from nightshift.accounts import store as accounts
from nightshift.core import settings
from nightshift.core.log import logger
from nightshift.webhooks import deliveries, queue, receivers
from nightshift.webhooks.message import Event, payload, signed_headers
from nightshift.webhooks.outcome import Outcome
from nightshift.webhooks.queue import Message
from nightshift.webhooks.record import Attempt, Delivery, Receiver
from nightshift.webhooks.schedule import next_delay

# Sends a body with headers to a URL, once.
Send: TypeAlias = Callable[[str, bytes, Mapping[str, str]], Outcome]
# Seconds since 1970.
Clock: TypeAlias = Callable[[], float]


def deliver(message: Message, *, send: Send, clock: Clock) -> bool:
    """Try once to deliver the event of ``message``. Returns whether the delivery is over.

    Where it is not over, the message is hidden until the next try. After the last failed try a copy of the message is
    in the dead-letter queue.
    """
    event = message.event
    if not accounts.exists(event.account_id):
        return True  # it was purged, and nothing of it is to be written again
    receiver = receivers.get(event.account_id)
    url = event.callback_url or receiver.url
    if url is None:
        _withdraw(event, clock)
        return True
    delivery = _begin(message, url, clock)
    if delivery.state != "pending":
        logger.info("webhook already delivered", delivery_id=delivery.id, state=delivery.state)
        return True
    outcome = _send(event, url, receiver, send, clock)
    delay = next_delay(outcome, delivery.tries + 1, settings.webhook_delays(), random.random())
    _record(message, delivery, url, outcome, delay, clock)
    if delay is not None:
        queue.postpone(message, delay)
    return delay is None


def _begin(message: Message, url: str, clock: Clock) -> Delivery:
    """The delivery of the message's event.

    A failed delivery starts again where an operator has moved its dead letter back. Any other message about a delivery
    that is over is a duplicate, because both the bus and the queue deliver at least once.
    """
    delivery = deliveries.begin(message.event, url)
    if delivery.state == "failed" and message.is_redriven:
        return deliveries.put(delivery.restarted(int(clock())))
    return delivery


def _withdraw(event: Event, clock: Clock) -> None:
    """End the delivery, if one has begun: the account's receiver was deleted."""
    delivery = deliveries.find(event)
    if delivery is not None and delivery.state == "pending":
        attempt = Attempt(attempted_at=int(clock()), status_code=None, error="webhook_deleted")
        deliveries.put(delivery.after(attempt, url=delivery.url, state="failed"))


def _send(event: Event, url: str, receiver: Receiver, send: Send, clock: Clock) -> Outcome:
    if not receiver.signing_secrets:
        receiver = receivers.with_secret(event.account_id)
    body = payload(event)
    return send(url, body, signed_headers(event.id, body, receiver.signing_secrets, clock()))


def _record(message: Message, delivery: Delivery, url: str, outcome: Outcome, delay: int | None, clock: Clock) -> None:
    """Record the attempt. ``delay`` is the time until the next one in seconds, None where none follows."""
    now = int(clock())
    tried = delivery.after(
        Attempt(attempted_at=now, status_code=outcome.status, error=outcome.error),
        url=url,
        state="pending" if delay is not None else "succeeded" if outcome.accepted else "failed",
        next_attempt_at=None if delay is None else now + delay,
    )
    if tried.state == "failed" and not outcome.gone:
        # Before the attempt is recorded: a crash between the two then duplicates the letter instead of losing it.
        queue.send_dead_letter(message)
    deliveries.put(tried)
    logger.info(
        "webhook tried",
        tries=tried.tries,
        status=outcome.status,
        error=outcome.error,
        state=tried.state,
        delay=delay,
    )
