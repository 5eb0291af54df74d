"""Webhooks on the whole path: batch, bus, queue, Lambda, receiver. The tries of this stack are a second apart."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
import standardwebhooks
from openai import APIStatusError, InvalidWebhookSignatureError, OpenAI
from openai.types import Batch

from local.processes import free_port
from local.settings import ROOT
from tests.e2e.conftest import Account, Answer, Killer, Local, Receiver, request_line, wait_for
from tools.event_schema import EVENT_SCHEMA, Event

Receive = Callable[..., Receiver]
TRIES = 9


def secret_of(account: Account) -> str:
    """A new signing secret. There is no second one if the account had none."""
    secret: str = account.client.post("/webhook/rotate", cast_to=httpx.Response).json()["secret"]
    return secret


def delivery(account: Account, batch: Batch) -> dict[str, Any] | None:
    """The batch's delivery; None before the first try."""
    page = account.client.get(f"/batches/{batch.id}/webhook_deliveries", cast_to=httpx.Response).json()
    assert len(page["data"]) <= 1
    return page["data"][0] if page["data"] else None


def over(account: Account, batch: Batch, seconds: float = 60) -> dict[str, Any]:
    """The batch's delivery after its last try."""

    def look() -> dict[str, Any] | None:
        found = delivery(account, batch)
        return found if found and found["status"] != "pending" else None

    return wait_for(look, seconds)


def tried(account: Account, batch: Batch, times: int) -> dict[str, Any]:
    """The batch's delivery after this number of tries."""

    def look() -> dict[str, Any] | None:
        found = delivery(account, batch)
        return found if found and len(found["attempts"]) >= times else None

    return wait_for(look)


def outcomes(found: dict[str, Any]) -> list[int | str]:
    """The status or the error of each try."""
    assert all((attempt["status_code"] is None) != (attempt["error"] is None) for attempt in found["attempts"])
    return [attempt["status_code"] or attempt["error"] for attempt in found["attempts"]]


def redeliver(account: Account, batch: Batch, delivery_id: str) -> dict[str, Any]:
    path = f"/batches/{batch.id}/webhook_deliveries/{delivery_id}/redeliver"
    answer: dict[str, Any] = account.client.post(path, cast_to=httpx.Response).json()
    return answer


def unwrap(received: tuple[dict[str, str], bytes], secret: str) -> Any:
    """The event, if both libraries accept it."""
    headers, body = received
    event = OpenAI(api_key="-").webhooks.unwrap(body, headers, secret=secret)
    assert standardwebhooks.Webhook(secret).verify(body, headers) == json.loads(body)
    return event


def all_the_same(receiver: Receiver) -> None:
    """Every try has the same id and body, and a timestamp that its signature covers."""
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1
    times = [int(headers["webhook-timestamp"]) for headers, _ in receiver.received]
    assert times == sorted(times)


def dead_letters(local: Local) -> set[str]:
    """The ids of all events in the dead-letter queue."""
    sqs = local.aws("sqs")
    (url,) = [each for each in sqs.list_queues()["QueueUrls"] if "WebhookDeadLetters" in each]
    ids: set[str] = set()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=20).get("Messages"):
        ids |= {json.loads(message["Body"])["detail"]["id"] for message in messages}
    return ids


# --- receivers ----------------------------------------------------------------------------------------------


def say(content: bytes) -> Answer:
    """Send these bytes and close the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(content)

    return answer


def flood(start: bytes, more: bytes) -> Answer:
    """Send ``more`` until the caller disconnects."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while True:
            handler.wfile.write(more)

    return answer


class Gate:
    """Delays answers until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def hold(self, handler: BaseHTTPRequestHandler) -> None:
        self._open.wait(120)
        handler.send_response(200)
        handler.end_headers()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


ELSEWHERE = "http://127.0.0.1:9/elsewhere"
RECEIVERS: dict[str, tuple[list[Answer], list[int | str]]] = {
    "down with 500 and 503": ([500, 503, 500], [500, 503, 500, 200]),
    "redirects": (
        [
            say(f"HTTP/1.1 {status} Moved\r\nLocation: {ELSEWHERE}\r\nContent-Length: 0\r\n\r\n".encode())
            for status in (301, 302, 307, 308)
        ],
        [301, 302, 307, 308, 200],
    ),
    "gone": ([410], [410]),
    "garbage": (
        [say(b"nonsense\r\n"), say(b"\x00\xff\xfe" * 100), say(b"HTTP/1.1 abc OK\r\n\r\n"), say(b"")],
        ["connection_failed"] * 4 + [200],
    ),
    "endless": (
        [
            flood(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65_536),
            flood(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b"x" * 0x4000 + b"\r\n"),
            flood(b"HTTP/1.1 200 OK\r\n", b"X-More: headers\r\n"),
            flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536),
        ],
        [500, 503, "connection_failed", 200],
    ),
    "taken with no content": ([204], [204]),
}


def test_each_answer_has_its_number_of_tries(local: Local, account: Account, receive: Receive, gate: Gate) -> None:
    """All receivers at the same time, and one that never answers."""
    secret = secret_of(account)
    receivers = {name: receive(list(answers)) for name, (answers, _) in RECEIVERS.items()}
    slow = receive([gate.hold])
    away = free_port()
    batches = {name: account.create(callback_url=receiver.url) for name, receiver in receivers.items()}
    slow_batch = account.create(callback_url=slow.url)
    away_batch = account.create(callback_url=f"http://127.0.0.1:{away}/hook")

    tried(account, away_batch, 2)
    back = receive(port=away)
    for name, (_, expected) in RECEIVERS.items():
        found = over(account, batches[name])
        assert outcomes(found) == expected, name
        assert found["status"] == ("failed" if name == "gone" else "succeeded")
        assert found["next_attempt_at"] is None
        assert len(receivers[name].received) == len(expected)
        all_the_same(receivers[name])
        for received in receivers[name].received:
            event = unwrap(received, secret)
            assert (event.type, event.data.id) == ("batch.completed", batches[name].id)
            assert found["event_id"] == event.id == received[0]["webhook-id"]
    found = over(account, away_batch)
    assert outcomes(found) == ["connection_failed"] * (len(found["attempts"]) - 1) + [200]
    assert len(back.received) == 1
    found = over(account, slow_batch)
    assert outcomes(found) == ["timeout", 200]
    first, second = (int(headers["webhook-timestamp"]) for headers, _ in slow.received)
    assert 15 <= second - first <= 25
    all_the_same(slow)
    assert not dead_letters(local) & {each["event_id"] for each in [found, over(account, batches["gone"])]}


def test_retry_after_delays_the_next_try(account: Account, receive: Receive) -> None:
    receiver = receive([say(b"HTTP/1.1 429 Slow down\r\nRetry-After: 6\r\nContent-Length: 0\r\n\r\n")])
    batch = account.create(callback_url=receiver.url)

    found = tried(account, batch, 1)
    assert found["status"] == "pending"
    assert found["next_attempt_at"] - found["attempts"][0]["attempted_at"] == 6
    assert outcomes(over(account, batch)) == [429, 200]

    first, second = (int(headers["webhook-timestamp"]) for headers, _ in receiver.received)
    assert second - first >= 6


def test_dead_letter_after_nine_tries_redelivers(local: Local, account: Account, receive: Receive) -> None:
    secret = secret_of(account)
    receiver = receive([500] * TRIES)
    batch = account.create(callback_url=receiver.url)

    pending = tried(account, batch, 1)
    with pytest.raises(APIStatusError) as refusal:
        redeliver(account, batch, pending["id"])
    assert (refusal.value.status_code, refusal.value.code) == (409, "delivery_pending")
    failed = over(account, batch)
    assert (failed["status"], outcomes(failed)) == ("failed", [500] * TRIES)
    assert failed["event_id"] in dead_letters(local)
    with pytest.raises(APIStatusError) as refusal:
        redeliver(Account(local), batch, failed["id"])
    assert refusal.value.status_code == 404

    for times in (1, 2):  # an accepted webhook can be redelivered too
        assert redeliver(account, batch, failed["id"])["status"] == "pending"
        found = over(account, batch)
        assert (found["status"], outcomes(found)) == ("succeeded", [500] * TRIES + [200] * times)
    assert len(receiver.received) == TRIES + 2
    all_the_same(receiver)
    assert unwrap(receiver.received[-1], secret).data.id == batch.id


def test_an_operator_redrives_a_dead_letter(local: Local, account: Account, receive: Receive) -> None:
    receiver = receive([500] * TRIES)
    batch = account.create(callback_url=receiver.url)
    assert over(account, batch)["status"] == "failed"

    redriven = local.admin("dead-letters", "redrive", "--batch", batch.id)

    assert redriven.stdout == "Dead letters sent again: 1.\n"
    wait_for(lambda: len(receiver.received) == TRIES + 1)
    wait_for(lambda: (delivery(account, batch) or {})["status"] == "succeeded")
    all_the_same(receiver)


# --- no delays for others, and no losses ---------------------------------------------------------------


def test_stuck_receiver_delays_no_other(local: Local, account: Account, receive: Receive, gate: Gate) -> None:
    many = 8  # more than the executions that Lambda starts with
    stuck, quick, other = receive([gate.hold] * many), receive(), Account(local)
    theirs = [account.create(callback_url=stuck.url) for _ in range(many)]
    wait_for(lambda: len(stuck.received) == many)

    ours = other.create(callback_url=quick.url)
    assert outcomes(over(other, ours)) == [200]

    # All of them were delayed: none was given up, and none was tried a second time.
    assert len(stuck.received) == many
    assert all((found := delivery(account, batch)) and found["attempts"] == [] for batch in theirs)
    gate.open()
    for batch in theirs:
        assert outcomes(over(account, batch)) == [200]


def test_old_secret_signs_after_a_rotation(account: Account, receive: Receive) -> None:
    old = secret_of(account)
    receiver = receive([say(b"HTTP/1.1 503 No\r\nRetry-After: 4\r\nContent-Length: 0\r\n\r\n")])
    batch = account.create(callback_url=receiver.url)
    tried(account, batch, 1)
    new = secret_of(account)
    over(account, batch)

    before, after = receiver.received
    assert len(before[0]["webhook-signature"].split()) == 1
    assert len(after[0]["webhook-signature"].split()) == 2
    for received, secret in [(before, old), (after, old), (after, new)]:
        assert unwrap(received, secret).data.id == batch.id
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(before, new)
    all_the_same(receiver)


@contextlib.contextmanager
def hidden_for(local: Local, seconds: int) -> Iterator[None]:
    """A short visibility timeout instead of three minutes, for a function that does not return."""
    sqs = local.aws("sqs")
    (url,) = [each for each in sqs.list_queues()["QueueUrls"] if "WebhookQueue" in each]
    names = ["VisibilityTimeout"]
    before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(seconds)})
    try:
        yield
    finally:
        sqs.set_queue_attributes(QueueUrl=url, Attributes=before)


def test_killed_delivery_is_sent_again(local: Local, account: Account, receive: Receive, gate: Gate) -> None:
    secret = secret_of(account)
    receiver = receive([gate.hold])
    with hidden_for(local, 3):
        batch = account.create(callback_url=receiver.url)
        wait_for(lambda: receiver.received)
        killer = Killer(local.folder, "DeliverWebhook", (0, 0), times=1)
        killer.start()
        killer.join()
        found = over(account, batch)

    assert killer.kills >= 1
    assert len(receiver.received) == 2
    all_the_same(receiver)
    assert [unwrap(received, secret).data.id for received in receiver.received] == [batch.id] * 2
    # The first try was not recorded, because its function was killed.
    assert (found["status"], outcomes(found)) == ("succeeded", [200])


def test_default_webhook_without_callback_url(account: Account, receive: Receive) -> None:
    receiver = receive()
    answer = account.client.put("/webhook", cast_to=httpx.Response, body={"url": receiver.url}).json()
    batch = account.create()

    assert outcomes(over(account, batch)) == [200]
    assert unwrap(receiver.received[0], answer["secret"]).data.id == batch.id
    assert json.loads(receiver.received[0][1])["data"] == json.loads(
        account.client.get(f"/batches/{batch.id}", cast_to=httpx.Response).text
    )


# --- other rules ------------------------------------------------------------------------------------------------


@pytest.fixture
def inbox(local: Local) -> Iterator[str]:
    """The queue of the template in docs/events.md, deployed beside the stack."""
    (template,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
    cloudformation, name = local.aws("cloudformation"), "ended-batches"
    bus = {"ParameterKey": "EventBusName", "ParameterValue": local.description["stack_name"]}
    cloudformation.create_stack(StackName=name, TemplateBody=template, Parameters=[bus])
    try:
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        yield {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}["InboxUrl"]
    finally:
        cloudformation.delete_stack(StackName=name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})


def test_documented_rule_gets_last_events(local: Local, account: Account, inbox: str) -> None:
    good = account.create()
    with local.environment("CreateBatch", SYNC_VALIDATION_SECONDS="0"):
        bad = account.create(account.upload(request_line("a")[:-3].encode()))
    ends = {good.id: "batch.completed", bad.id: "batch.failed"}
    sqs, told = local.aws("sqs"), dict[str, dict[str, Any]]()

    def all_told() -> bool:
        messages = sqs.receive_message(QueueUrl=inbox, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        events = [json.loads(message["Body"]) for message in messages]
        told.update({event["resources"][0]: event for event in events if event["resources"][0] in ends})
        return len(told) == len(ends)

    wait_for(all_told)
    for event in told.values():
        jsonschema.validate(event, json.loads(EVENT_SCHEMA.read_text()))
        assert msgspec.to_builtins(msgspec.convert(event, Event)) == event
        batch = account.client.get(f"/batches/{event['resources'][0]}", cast_to=httpx.Response).json()
        assert event["detail"]["batch"] == batch
        assert event["detail"]["account_id"] == account.id
    assert {batch_id: event["detail-type"] for batch_id, event in told.items()} == ends
