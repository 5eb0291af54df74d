"""What a receiver of webhooks gets: the same bytes on every try, signed so that the libraries accept them."""

import base64
import json
import time
from typing import Any

import openai
import pytest
from nightshift.events import status_event
from nightshift.webhooks import Attempt, new_secret, payload, signed_headers
from openai import OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from tests.unit.samples import batch_item

EVENT = status_event(batch_item(status="completed", completed_at=1_700_000_500, metadata={"ß": "\U0001f600\n"}))


def unwrap(body: bytes, headers: dict[str, str], secret: str) -> Any:
    return OpenAI(api_key="sk-none").webhooks.unwrap(body, headers, secret=secret)


def test_the_payload_is_that_of_the_contract() -> None:
    body = json.loads(payload(EVENT))
    assert body == {
        "id": EVENT["id"],
        "object": "event",
        "type": "batch.completed",
        "created_at": 1_700_000_500,
        "data": EVENT["batch"],
    }
    assert body["data"]["id"] == "batch_1"


def test_the_payload_has_the_same_bytes_on_every_try() -> None:
    again = json.loads(json.dumps(EVENT))  # as it comes back from the queue
    backwards = dict(reversed(again.items())) | {"batch": dict(reversed(again["batch"].items()))}
    assert payload(EVENT) == payload(again) == payload(backwards)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_the_openai_sdk_accepts_and_types_the_event(status: str) -> None:
    event = status_event(batch_item(status=status, **{f"{status}_at": 1_700_000_500}))
    secret, body = new_secret(), payload(event)
    found = unwrap(body, signed_headers(event["id"], body, [secret], time.time()), secret)
    assert (found.id, found.type, found.data.id) == (event["id"], f"batch.{status}", "batch_1")


def test_the_library_of_standard_webhooks_accepts_it() -> None:
    secret, body = new_secret(), payload(EVENT)
    headers = signed_headers(EVENT["id"], body, [secret], time.time())
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    assert headers["webhook-id"] == EVENT["id"]
    assert headers["Content-Type"] == "application/json"


def test_while_a_secret_is_rotated_both_sign() -> None:
    new, old, body = new_secret(), new_secret(), payload(EVENT)
    headers = signed_headers(EVENT["id"], body, [new, old], time.time())
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (new, old):
        Webhook(secret).verify(body, headers)
        unwrap(body, headers, secret)


def test_nobody_else_is_believed() -> None:
    body = payload(EVENT)
    headers = signed_headers(EVENT["id"], body, [new_secret()], time.time())
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(body, headers, new_secret())


@pytest.mark.parametrize("change", ["body", "webhook-id", "webhook-timestamp"])
def test_nothing_can_be_changed_on_the_way(change: str) -> None:
    secret, body = new_secret(), payload(EVENT)
    headers = signed_headers(EVENT["id"], body, [secret], time.time())
    if change == "body":
        body = body.replace(b"completed", b"cancelled")
    else:
        headers[change] = {"webhook-id": "evt_x", "webhook-timestamp": str(int(time.time()) + 1)}[change]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(body, headers, secret)


def test_the_same_event_keeps_its_id_and_gets_a_new_time_on_a_later_try() -> None:
    body, secret = payload(EVENT), new_secret()
    first = signed_headers(EVENT["id"], body, [secret], 1_700_000_000.9)
    later = signed_headers(EVENT["id"], body, [secret], 1_700_003_000)
    assert first["webhook-id"] == later["webhook-id"]
    assert (first["webhook-timestamp"], later["webhook-timestamp"]) == ("1700000000", "1700003000")
    assert first["webhook-signature"] != later["webhook-signature"]


def test_a_secret_is_one_of_standard_webhooks() -> None:
    prefix, _, rest = new_secret().partition("_")
    assert prefix == "whsec"
    assert len(base64.b64decode(rest, validate=True)) == 32
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    ("status", "over"),
    [
        (200, True),
        (204, True),
        (299, True),
        (410, True),
        (199, False),
        (301, False),
        (404, False),
        (429, False),
        (500, False),
    ],
)
def test_a_success_or_gone_for_good_ends_the_tries(status: int, over: bool) -> None:
    assert Attempt(status=status).over is over


def test_no_answer_does_not_end_the_tries() -> None:
    assert not Attempt(error="timeout").over
