"""A webhook has the same bytes on every try, and signatures that the libraries accept."""

import base64
import json
import time
from typing import Any

import msgspec
import openai
import pytest
from nightshift.batches.events import status_event
from nightshift.webhooks.message import Event, new_secret, payload, signed_headers
from openai import OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from tests.unit.samples import batch


def event(**fields: Any) -> Event:
    """The event of a batch that has ended, as it comes from the queue."""
    return msgspec.json.decode(msgspec.json.encode(status_event(batch(**fields))), type=Event)


EVENT = event(status="completed", completed_at=1_700_000_500, metadata={"ß": "\U0001f600\n"})


def unwrap(body: bytes, headers: dict[str, str], secret: str) -> Any:
    return OpenAI(api_key="sk-none").webhooks.unwrap(body, headers, secret=secret)


def test_the_payload_is_an_openai_event() -> None:
    body = json.loads(payload(EVENT))
    assert body == {
        "id": EVENT.id,
        "object": "event",
        "type": "batch.completed",
        "created_at": 1_700_000_500,
        "data": EVENT.batch,
    }
    assert body["data"]["id"] == "batch_1"


def test_every_try_has_the_same_payload() -> None:
    backwards = msgspec.structs.replace(EVENT, batch=dict(reversed(EVENT.batch.items())))
    assert list(backwards.batch) != list(EVENT.batch)
    assert payload(EVENT) == payload(backwards)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_the_openai_sdk_accepts_the_event(status: str) -> None:
    ended = event(status=status, **{f"{status}_at": 1_700_000_500})
    secret, body = new_secret(), payload(ended)
    found = unwrap(body, signed_headers(ended.id, body, [secret], time.time()), secret)
    assert (found.id, found.type, found.data.id) == (ended.id, f"batch.{status}", "batch_1")


def test_standard_webhooks_accepts_the_event() -> None:
    secret, body = new_secret(), payload(EVENT)
    headers = signed_headers(EVENT.id, body, [secret], time.time())
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    assert headers["webhook-id"] == EVENT.id
    assert headers["Content-Type"] == "application/json"


def test_two_secrets_make_two_signatures() -> None:
    new, old, body = new_secret(), new_secret(), payload(EVENT)
    headers = signed_headers(EVENT.id, body, [new, old], time.time())
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (new, old):
        Webhook(secret).verify(body, headers)
        unwrap(body, headers, secret)


def test_another_secret_is_rejected() -> None:
    body = payload(EVENT)
    headers = signed_headers(EVENT.id, body, [new_secret()], time.time())
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(body, headers, new_secret())


@pytest.mark.parametrize("change", ["body", "webhook-id", "webhook-timestamp"])
def test_a_changed_message_is_rejected(change: str) -> None:
    secret, body = new_secret(), payload(EVENT)
    headers = signed_headers(EVENT.id, body, [secret], time.time())
    if change == "body":
        body = body.replace(b"completed", b"cancelled")
    else:
        headers[change] = {"webhook-id": "evt_x", "webhook-timestamp": str(int(time.time()) + 1)}[change]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(body, headers, secret)


def test_a_later_try_has_a_new_time() -> None:
    body, secret = payload(EVENT), new_secret()
    first = signed_headers(EVENT.id, body, [secret], 1_700_000_000.9)
    later = signed_headers(EVENT.id, body, [secret], 1_700_003_000)
    assert first["webhook-id"] == later["webhook-id"]
    assert (first["webhook-timestamp"], later["webhook-timestamp"]) == ("1700000000", "1700003000")
    assert first["webhook-signature"] != later["webhook-signature"]


def test_a_secret_is_32_random_bytes() -> None:
    prefix, _, rest = new_secret().partition("_")
    assert prefix == "whsec"
    assert len(base64.b64decode(rest, validate=True)) == 32
    assert new_secret() != new_secret()
