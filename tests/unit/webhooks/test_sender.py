"""What a receiver of webhooks gets: the same bytes on every try, signed so that the libraries accept them."""

import base64
import json
import time
from dataclasses import replace
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.batches.events import status_event
from nightshift.webhooks.sender import (
    MAX_DELAY_SECONDS,
    WHOLE_SECONDS,
    Attempt,
    new_secret,
    next_delay,
    payload,
    signed_headers,
)
from openai import OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from tests.unit.samples import batch_item

EVENT = msgspec.to_builtins(
    status_event(batch_item(status="completed", completed_at=1_700_000_500, metadata={"ß": "\U0001f600\n"}))
)


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
    event = msgspec.to_builtins(status_event(batch_item(status=status, **{f"{status}_at": 1_700_000_500})))
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
    ("status", "taken", "gone"),
    [
        (200, True, False),
        (204, True, False),
        (299, True, False),
        (410, False, True),
        (199, False, False),
        (300, False, False),
        (301, False, False),
        (404, False, False),
        (429, False, False),
        (500, False, False),
    ],
)
def test_an_answer_is_taken_gone_or_neither(status: int, taken: bool, gone: bool) -> None:
    attempt = Attempt(status=status)
    assert (attempt.taken, attempt.gone) == (taken, gone)


def test_no_answer_is_neither_taken_nor_gone() -> None:
    attempt = Attempt(error="timeout")
    assert not attempt.taken
    assert not attempt.gone


# --- when the next try is -------------------------------------------------------------------------------------------

DELAYS = [5, 25, 90, 480, 3_000, 10_800, 28_860, 43_140]
FAILED = Attempt(status=500)


@pytest.mark.parametrize(
    ("attempt", "tries", "chance", "delay"),
    [
        (FAILED, 1, 0, 5),
        (FAILED, 1, 0.999, 5),
        (FAILED, 2, 0, 25),
        (FAILED, 2, 0.999, 27),
        (FAILED, 3, 0.5, 94),
        (FAILED, 7, 0, 28_860),
        (FAILED, 7, 0.5, 30_303),
        (FAILED, 8, 0, 43_140),
        (FAILED, 8, 0.5, MAX_DELAY_SECONDS),
        (FAILED, 9, 0, None),
        (FAILED, 10, 0, None),
        (Attempt(error="timeout"), 1, 0, 5),
        (Attempt(error="refused_address"), 8, 0, 43_140),
        (Attempt(status=301), 1, 0, 5),
        (Attempt(status=200), 1, 0, None),
        (Attempt(status=204, retry_after=60), 1, 0, None),
        (Attempt(status=410), 1, 0, None),
        (Attempt(status=410, retry_after=60), 1, 0, None),
        (Attempt(status=429, retry_after=60), 1, 0, 60),
        (Attempt(status=429, retry_after=60), 1, 0.999, 60),
        (Attempt(status=429, retry_after=1), 2, 0, 25),
        (Attempt(status=503, retry_after=0), 1, 0, 5),
        (Attempt(status=503, retry_after=10**9), 1, 0, MAX_DELAY_SECONDS),
        (Attempt(status=503, retry_after=1e300), 1, 0, MAX_DELAY_SECONDS),
        (Attempt(status=429, retry_after=60), 9, 0, None),
    ],
)
def test_the_next_try(attempt: Attempt, tries: int, chance: float, delay: int | None) -> None:
    assert next_delay(attempt, tries, DELAYS, chance) == delay


@st.composite
def growing_delays(draw: st.DrawFn) -> list[int]:
    return sorted(draw(st.lists(st.integers(1, MAX_DELAY_SECONDS), min_size=1, max_size=12)))


chances = st.floats(0, 1, exclude_max=True)
failed_attempts = st.one_of(
    st.sampled_from(["timeout", "connection_failed", "refused_address"]).map(lambda error: Attempt(error=error)),
    st.integers(300, 599).filter(lambda status: status != 410).map(lambda status: Attempt(status=status)),
)


@given(growing_delays(), failed_attempts, chances)
def test_gaps_grow_with_at_most_a_tenth_of_jitter(delays: list[int], attempt: Attempt, chance: float) -> None:
    gaps = [next_delay(attempt, tries, delays, chance) for tries in range(1, len(delays) + 1)]
    known = [gap for gap in gaps if gap is not None]
    assert len(known) == len(delays)
    assert known == sorted(known)
    for gap, delay in zip(known, delays, strict=True):
        assert delay <= gap <= min(MAX_DELAY_SECONDS, delay * 1.1 + 0.5)


@given(growing_delays(), failed_attempts, chances, st.floats(0, allow_infinity=False), st.data())
def test_a_longer_retry_after_wins_up_to_what_sqs_takes(
    delays: list[int], attempt: Attempt, chance: float, seconds: float, data: st.DataObject
) -> None:
    tries = data.draw(st.integers(1, len(delays)))
    plain = next_delay(attempt, tries, delays, chance)
    asked = next_delay(replace(attempt, retry_after=seconds), tries, delays, chance)
    assert plain is not None
    assert asked == min(MAX_DELAY_SECONDS, max(plain, round(seconds)))


@given(st.lists(st.integers(1, 10**9), max_size=12), failed_attempts, chances, st.integers(1, 30))
def test_after_the_last_gap_there_is_no_try_and_no_gap_is_too_long(
    delays: list[int], attempt: Attempt, chance: float, tries: int
) -> None:
    delay = next_delay(attempt, tries, delays, chance)
    assert (delay is None) == (tries > len(delays))
    assert delay is None or delay <= MAX_DELAY_SECONDS


@given(st.integers(200, 299) | st.just(410), st.integers(1, 9), chances)
def test_nothing_comes_after_the_end(status: int, tries: int, chance: float) -> None:
    assert next_delay(Attempt(status=status, retry_after=60), tries, DELAYS, chance) is None


def test_the_longest_gap_and_a_try_are_within_what_sqs_takes() -> None:
    """SQS hides a message for 12 hours in all from the moment it was received."""
    assert MAX_DELAY_SECONDS + WHOLE_SECONDS < 12 * 3600
