"""publish_events and deliver_webhook: one event for each status, and each webhook tried until it is accepted."""

import contextlib
import copy
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
import trustme
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sqs.models import sqs_backends
from nightshift.batches import store as batches
from nightshift.batches.events import status_event
from nightshift.batches.record import Batch, item_of
from nightshift.core import aws, settings, table
from nightshift.core.ids import derived_id
from nightshift.webhooks import addresses, deliveries, receivers, sender
from nightshift.webhooks import record as webhook_record
from nightshift.webhooks.outcome import Outcome
from nightshift.webhooks.record import Delivery
from nightshift.webhooks.resources import DeliveryResource
from nightshift.webhooks.schedule import MAX_DELAY_SECONDS
from openai import OpenAI

from tests.integration.support import (
    REGION,
    Behave,
    Caller,
    Exchange,
    Received,
    Reply,
    Server,
    input_lines,
    invoke,
    put_batch,
    sample,
    serving,
    set_batch,
)
from tools.event_schema import EVENT_SCHEMA, Event

# --- publish_events -------------------------------------------------------------------------------------------------


USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 10,
}


def hold_to_schema(entry: dict[str, Any]) -> None:
    """What the bus makes of an entry has the documented shape, and no undocumented field."""
    event = {
        "version": "0",
        "id": "9f3a2c61-7d24-4c0b-8a5e-0e6a4f1b7c55",
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "account": "123456789012",
        "time": "2025-11-24T02:11:31Z",
        "region": REGION,
        "resources": entry["Resources"],
        "detail": json.loads(entry["Detail"]),
    }
    jsonschema.validate(event, json.loads(EVENT_SCHEMA.read_text()))
    assert msgspec.to_builtins(msgspec.convert(event, Event)) == event
    assert event["detail-type"] == f"batch.{event['detail']['batch']['status']}"
    assert event["resources"] == [event["detail"]["batch"]["id"]]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The entries that were put on the bus, call by call."""
    calls: list[list[dict[str, Any]]] = []
    put_events = aws.client("events").put_events

    def noted(Entries: list[Any]) -> Any:  # noqa: N803 (boto3's name)
        calls.append(Entries)
        for entry in Entries:
            hold_to_schema(entry)
        return put_events(Entries=Entries)

    monkeypatch.setattr(aws.client("events"), "put_events", noted)
    return calls


def stream(*changes: tuple[dict[str, Any] | None, dict[str, Any]]) -> dict[str, Any]:
    """Stream records for items that were ``(old, new)``."""
    records = []
    for number, (old, new) in enumerate(changes):
        record = copy.deepcopy(sample("publish_events")["Records"][1])
        record["eventName"] = "MODIFY" if old else "INSERT"
        record["dynamodb"] |= {"NewImage": table.encode(new), "SequenceNumber": str(number)}
        if old:
            record["dynamodb"]["OldImage"] = table.encode(old)
        else:
            del record["dynamodb"]["OldImage"]
        records.append(record)
    return {"Records": records}


def test_only_batch_items_become_events(bus: list[list[dict[str, Any]]]) -> None:
    assert invoke("publish_events", sample("publish_events")) == {"batchItemFailures": []}
    [[entry]] = bus
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == (
        settings.event_bus(),
        "nightshift",
        "batch.completed",
    )
    detail = json.loads(entry["Detail"])
    webhook = json.loads(sample("deliver_webhook")["Records"][0]["body"])["detail"]
    assert detail == webhook
    assert (detail["version"], detail["id"]) == ("1", derived_id("evt", detail["batch"]["id"], "completed"))


def test_each_status_is_one_event(alice: Caller, bus: list[list[dict[str, Any]]]) -> None:
    born = item_of(put_batch(alice, "batch_1"))
    begun = {**born, "status": "in_progress", "in_progress_at": 2_000}
    touched = {**begun, "usage": USAGE}
    event = stream((None, born), (born, begun), (begun, touched))
    for _ in range(2):
        invoke("publish_events", event)
    entries = [entry for call in bus for entry in call]
    first, again = entries[:2], entries[2:]
    assert [entry["DetailType"] for entry in first] == ["batch.validating", "batch.in_progress"]
    assert first == again
    details = [json.loads(entry["Detail"]) for entry in first]
    assert [detail["created_at"] for detail in details] == [1_000, 2_000]
    assert len({detail["id"] for detail in details}) == 2
    assert {detail["account_id"] for detail in details} == {alice.account_id}


def test_events_of_whole_lives_are_documented(
    alice: Caller, upstream: Server, bus: list[list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real batches to each of their ends, and every image that the stream would show of them."""
    images: list[tuple[dict[str, Any] | None, dict[str, Any]]] = []
    last: dict[str, dict[str, Any]] = {}

    def look() -> None:
        for item in map(item_of, batches.list_page(alice.account_id, limit=100, after=None)[0]):
            if item != last.get(item["sk"]):
                images.append((last.get(item["sk"]), item))
                last[item["sk"]] = item

    dynamodb = aws.client("dynamodb")

    def spied(write: Callable[..., Any]) -> Callable[..., Any]:
        def spy(**request: Any) -> Any:
            answer = write(**request)
            look()
            return answer

        return spy

    for name in ("put_item", "update_item"):
        monkeypatch.setattr(dynamodb, name, spied(getattr(dynamodb, name)))

    completed = alice.begin(input_lines(3), metadata={"team": "search"}, callback_url="https://hooks.example.com/")
    alice.run_chunks(completed)
    alice.finalize(completed)
    cancelled = alice.begin(input_lines(2))
    alice("POST", f"/batches/{cancelled}/cancel")
    alice.run_chunks(cancelled)
    alice.finalize(cancelled)
    expired = alice.begin(input_lines(2))
    set_batch(alice, expired, expires_at=1)
    alice.run_chunks(expired)
    alice.finalize(expired)
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    failed = alice.create(["{"])
    invoke("validate_batch", alice.start(failed))

    invoke("publish_events", stream(*images))
    told = [(entry["Resources"][0], entry["DetailType"]) for call in bus for entry in call]
    lives = {
        completed: ["validating", "in_progress", "finalizing", "completed"],
        cancelled: ["validating", "in_progress", "cancelling", "cancelled"],
        expired: ["validating", "in_progress", "expired"],
        failed: ["validating", "failed"],
    }
    assert told == [(batch_id, f"batch.{status}") for batch_id, life in lives.items() for status in life]


def test_no_change_of_status_is_no_event(bus: list[list[dict[str, Any]]]) -> None:
    chunk = {"pk": "batch_1", "sk": "chunk#0000", "completed": 1, "failed": 0, "done": 1}
    assert invoke("publish_events", stream((None, chunk), (chunk, {**chunk, "done": 2}))) == {"batchItemFailures": []}
    removed = stream((None, chunk))
    del removed["Records"][0]["dynamodb"]["NewImage"]
    assert invoke("publish_events", removed | {"eventName": "REMOVE"}) == {"batchItemFailures": []}
    assert bus == []


def test_the_first_refused_event_is_reported(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item_of(put_batch(alice, f"batch_{number:02d}")) for number in range(13)]

    def refuse_one(Entries: list[Any]) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        refused = {"ErrorCode": "ThrottlingException", "ErrorMessage": "-"}
        taken = {"EventId": "1"}
        return {"Entries": [refused if entry["Resources"] == ["batch_11"] else taken for entry in Entries]}

    monkeypatch.setattr(aws.client("events"), "put_events", refuse_one)
    answer = invoke("publish_events", stream(*[(None, item) for item in items]))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "11"}]}


def test_an_event_refused_for_good_is_set_aside(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item_of(put_batch(alice, f"batch_{number:02d}")) for number in range(13)]
    published: list[str] = []

    def refuse_one(Entries: list[Any]) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        published.extend(entry["Resources"][0] for entry in Entries)
        refused = {"ErrorCode": "MalformedDetail", "ErrorMessage": "-"}
        return {"Entries": [refused if entry["Resources"] == ["batch_03"] else {} for entry in Entries]}

    monkeypatch.setattr(aws.client("events"), "put_events", refuse_one)
    assert invoke("publish_events", stream(*[(None, item) for item in items])) == {"batchItemFailures": []}
    assert len(published) == 13
    url = settings.event_dead_letters_url()
    [letter] = aws.client("sqs").receive_message(QueueUrl=url)["Messages"]
    assert json.loads(letter["Body"])["batch"]["id"] == "batch_03"


def test_no_call_to_the_bus_is_over_its_limit(alice: Caller, bus: list[list[dict[str, Any]]]) -> None:
    """PutEvents takes 256 KiB in all. A batch that failed with its hundred entries has some 40 KB of them."""
    error = {"code": "invalid_request", "message": "The model " + "m" * 380, "param": "body.model", "line": 1}
    failed = [
        {
            **item_of(put_batch(alice, f"batch_{number}")),
            "status": "failed",
            "failed_at": 2_000,
            "errors": [error] * 100,
        }
        for number in range(10)
    ]
    assert invoke("publish_events", stream(*[(None, item) for item in failed])) == {"batchItemFailures": []}
    assert sum(len(call) for call in bus) == 10
    assert max(sum(len(entry["Detail"].encode()) for entry in call) for call in bus) <= 256 * 1024


def test_an_event_after_validation_has_counts(alice: Caller, bus: list[list[dict[str, Any]]]) -> None:
    born = item_of(put_batch(alice, "batch_1", lines=3))
    invoke("publish_events", stream((born, {**born, "status": "in_progress", "in_progress_at": 2_000})))
    batch = json.loads(bus[0][0]["Detail"])["batch"]
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 0}


# --- deliver_webhook ------------------------------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_LOCAL_WEBHOOKS", "1")


def detail_for(caller: Caller, callback_url: str | None) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(sample("deliver_webhook")["Records"][0]["body"])["detail"]
    detail["account_id"] = caller.account_id
    detail["batch"]["callback_url"] = callback_url
    return detail


def enqueue(detail: dict[str, Any]) -> None:
    """What the rule does with a terminal event."""
    body = json.loads(sample("deliver_webhook")["Records"][0]["body"]) | {"detail": detail}
    aws.client("sqs").send_message(QueueUrl=settings.webhook_queue_url(), MessageBody=json.dumps(body))


def waiting(queue: str = "webhooks") -> list[Any]:
    """The messages on a queue, hidden or not."""
    messages: list[Any] = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues[queue]._messages
    return messages


def dead_letters() -> list[dict[str, Any]]:
    """The details of the events that were given up."""
    return [json.loads(message.body)["detail"] for message in waiting("webhook-dead-letters")]


def work() -> tuple[bool, float]:
    """One try, as Lambda's poller makes it for a visible message.

    Returns whether the delivery has ended, and for how many seconds the message stays hidden.
    """
    sqs, url = aws.client("sqs"), settings.webhook_queue_url()
    waiting()[0].visible_at = 0
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]
    event = sample("deliver_webhook")
    event["Records"][0] |= {
        "messageId": message["MessageId"],
        "body": message["Body"],
        "receiptHandle": message["ReceiptHandle"],
    }
    answer = invoke("deliver_webhook", event)
    if not answer["batchItemFailures"]:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return True, 0.0
    assert answer == {"batchItemFailures": [{"itemIdentifier": message["MessageId"]}]}
    return False, waiting()[0].visible_at / 1000 - time.time()


def deliver(caller: Caller, callback_url: str | None) -> tuple[bool, float]:
    """The first try of an event."""
    enqueue(detail_for(caller, callback_url))
    return work()


def recorded(detail: dict[str, Any]) -> Delivery:
    [delivery] = deliveries.of_batch(detail["batch"]["id"])
    return delivery


@pytest.mark.usefixtures("local")
def test_the_openai_sdk_accepts_a_webhook(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    secret = receivers.set_url(alice.account_id, f"{server.url}/hook")
    assert deliver(alice, None) == (True, 0.0)
    [received] = server.received
    assert received.path == "/hook"
    event = OpenAI(api_key="-").webhooks.unwrap(received.body, received.headers, secret=secret)
    detail = detail_for(alice, None)
    assert (event.type, event.id, event.created_at) == ("batch.completed", detail["id"], detail["created_at"])
    assert json.loads(received.body)["data"] == detail["batch"]
    assert received.headers["webhook-id"] == detail["id"]
    assert received.headers["content-type"] == "application/json"


@pytest.mark.usefixtures("local")
def test_a_callback_url_comes_first(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(204)
    receivers.set_url(alice.account_id, f"{server.url}/default")
    assert deliver(alice, f"{server.url}/own")[0]
    assert [received.path for received in server.received] == ["/own"]


@pytest.mark.usefixtures("local")
def test_a_callback_url_alone_makes_a_secret(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    deliver(alice, server.url)
    [secret] = receivers.get(alice.account_id).signing_secrets
    [received] = server.received
    OpenAI(api_key="-").webhooks.verify_signature(received.body, received.headers, secret=secret)


@pytest.mark.usefixtures("local")
def test_a_rotated_secret_signs_for_a_day(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    old = receivers.set_url(alice.account_id, server.url)
    new = receivers.rotate_secret(alice.account_id)
    deliver(alice, None)
    for secret in (old, new):
        OpenAI(api_key="-").webhooks.verify_signature(
            server.received[0].body, server.received[0].headers, secret=secret
        )
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + receivers.OVERLAP_SECONDS + 1)
    assert receivers.get(alice.account_id).signing_secrets == (new,)


@pytest.mark.usefixtures("local")
def test_every_try_has_the_same_id_and_body(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    receivers.set_url(alice.account_id, server.url)
    assert not deliver(alice, None)[0]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert not work()[0]
    first, second = server.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) >= 59


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("status", [200, 201, 204, 299, 410])
def test_success_and_410_end_a_delivery(alice: Caller, server: Server, status: int) -> None:
    server.behave = lambda exchange: exchange.reply(status)
    assert deliver(alice, server.url) == (True, 0.0)
    delivery = recorded(detail_for(alice, server.url))
    assert delivery.state == ("failed" if status == 410 else "succeeded")
    assert [attempt.status_code for attempt in delivery.attempts] == [status]
    assert delivery.next_attempt_at is None
    assert dead_letters() == []


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda exchange: exchange.reply(500), id="500"),
        pytest.param(lambda exchange: exchange.reply(404), id="404"),
        pytest.param(lambda exchange: exchange.reply(429), id="429"),
        pytest.param(lambda exchange: exchange.reply(302, Location="/elsewhere"), id="redirect"),
        pytest.param(lambda exchange: exchange.reply(308, Location="/elsewhere"), id="permanent redirect"),
        pytest.param(lambda exchange: exchange.raw(b"nonsense\r\n"), id="no HTTP"),
        pytest.param(Exchange.reset, id="reset"),
    ],
)
def test_any_other_response_is_tried_again(alice: Caller, server: Server, behave: Behave) -> None:
    server.behave = behave
    over, hidden = deliver(alice, server.url)
    assert not over
    assert 3 < hidden < 6.5
    assert len(server.received) == 1


@pytest.mark.usefixtures("local")
def test_a_receiver_that_hangs_times_out(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "WHOLE_SECONDS", 0.2)
    server.behave = server.hang
    assert not deliver(alice, server.url)[0]


def held_answer(first: bytes, server: Server) -> Behave:
    """Sends ``first``, and then nothing more."""

    def behave(exchange: Exchange) -> None:
        exchange.handler.wfile.write(first)
        server.hang(exchange)

    return behave


@pytest.mark.usefixtures("local")
def test_the_status_counts_without_a_body(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "WHOLE_SECONDS", 0.2)
    server.behave = held_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", server)
    assert deliver(alice, server.url) == (True, 0.0)
    assert recorded(detail_for(alice, server.url)).state == "succeeded"


@pytest.mark.usefixtures("local")
def test_a_crash_loses_no_dead_letter(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    detail = detail_for(alice, server.url)
    enqueue(detail)
    for _ in range(8):
        work()

    def crash(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(deliveries, "put", crash)
        with pytest.raises(RuntimeError, match="killed"):
            work()
    assert recorded(detail).state == "pending"
    assert work() == (True, 0.0)
    assert recorded(detail).state == "failed"
    assert dead_letters() == [detail] * 2


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("start", "more", "error"),
    [
        (b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65_536, None),
        (b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\n\r\n", b"\x1f\x8b" * 10_000, None),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1_000, "connection_failed"),
        (b"HTTP/1.1 200 ", b"x" * 65_536, "connection_failed"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "timeout"),
    ],
    ids=["body", "compressed body", "headers", "status line", "interim answers"],
)
def test_an_endless_response_is_cut_off(
    alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch, start: bytes, more: bytes, error: str | None
) -> None:
    monkeypatch.setattr(sender, "WHOLE_SECONDS", 2.0)
    hung_up = threading.Event()

    def behave(exchange: Exchange) -> None:
        exchange.handler.close_connection = True
        try:
            exchange.handler.wfile.write(start)
            while True:
                exchange.handler.wfile.write(more)
        except OSError:
            hung_up.set()

    server.behave = behave
    began = time.monotonic()
    assert not deliver(alice, server.url)[0]
    assert hung_up.wait(20)
    assert time.monotonic() - began < 15
    [attempt] = recorded(detail_for(alice, server.url)).attempts
    assert (attempt.status_code, attempt.error) == (None if error else 500, error)


@pytest.mark.usefixtures("local")
def test_a_dead_letter_follows_nine_tries(alice: Caller, server: Server) -> None:
    """SQS hides a message for 12 hours in all from the moment it was received: 43,200 s from now is refused."""
    server.behave = lambda exchange: exchange.reply(500)
    detail = detail_for(alice, server.url)
    enqueue(detail)
    for tries, delay in enumerate([5, 25, 90, 480, 3_000, 10_800, 28_860, 43_140], 1):
        before = int(time.time())
        over, hidden = work()
        assert not over
        assert delay - 3 < hidden < min(delay * 1.1 + 1, 43_200 - sender.WHOLE_SECONDS)
        delivery = recorded(detail)
        assert (delivery.state, delivery.tries) == ("pending", tries)
        assert delivery.next_attempt_at is not None
        assert before + delay <= delivery.next_attempt_at <= time.time() + hidden + 2
        assert dead_letters() == []
    assert work() == (True, 0.0)
    delivery = recorded(detail)
    assert (delivery.state, delivery.tries) == ("failed", 9)
    assert delivery.next_attempt_at is None
    assert [attempt.status_code for attempt in delivery.attempts] == [500] * 9
    assert dead_letters() == [detail]
    assert waiting() == []
    assert len(server.received) == 9


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(("asked", "hidden"), [("60", 60), ("1", 5), ("86400", MAX_DELAY_SECONDS)])
def test_a_longer_retry_after_is_honoured(alice: Caller, server: Server, asked: str, hidden: int) -> None:
    server.behave = lambda exchange: exchange.reply(429, Retry_After=asked)
    over, seconds = deliver(alice, server.url)
    assert not over
    assert hidden - 2 < seconds < hidden + 1
    delivery = recorded(detail_for(alice, server.url))
    assert delivery.next_attempt_at is not None
    assert abs(delivery.next_attempt_at - time.time() - seconds) < 2


@pytest.mark.usefixtures("local")
def test_a_duplicate_event_is_sent_once(alice: Caller, server: Server) -> None:
    """Both the bus and the queue deliver at least once."""
    server.behave = lambda exchange: exchange.reply(200)
    for _ in range(2):
        assert deliver(alice, server.url) == (True, 0.0)
    assert len(server.received) == 1
    assert recorded(detail_for(alice, server.url)).tries == 1


@pytest.mark.usefixtures("local")
def test_an_unrecorded_try_is_sent_again(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behave = lambda exchange: exchange.reply(200)

    def crash(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(deliveries, "put", crash)
        with pytest.raises(RuntimeError, match="killed"):
            deliver(alice, server.url)
    assert recorded(detail_for(alice, server.url)).state == "pending"
    assert work() == (True, 0.0)
    first, second = server.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert recorded(detail_for(alice, server.url)).state == "succeeded"


@pytest.mark.usefixtures("local")
def test_a_deleted_webhook_ends_its_tries(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    receivers.set_url(alice.account_id, server.url)
    assert not deliver(alice, None)[0]
    receivers.delete_url(alice.account_id)
    assert work() == (True, 0.0)
    delivery = recorded(detail_for(alice, None))
    assert (delivery.state, delivery.url) == ("failed", server.url)
    assert [attempt.error for attempt in delivery.attempts] == [None, "webhook_deleted"]
    assert len(server.received) == 1
    assert dead_letters() == []


def test_no_receiver_means_no_delivery(alice: Caller) -> None:
    assert deliver(alice, None) == (True, 0.0)
    receivers.set_url(alice.account_id, "https://hooks.example.com")
    receivers.delete_url(alice.account_id)
    assert deliver(alice, None) == (True, 0.0)


# --- deliveries and redelivery --------------------------------------------------------------------------------------


@pytest.fixture
def ended(alice: Caller, server: Server) -> Batch:
    """A batch that has ended, and whose event waits for its first try."""
    put_batch(alice, "batch_1", metadata={"b": "ß\u2028\U0001f600", "a": "\n"}, callback_url=server.url)
    set_batch(alice, "batch_1", status="completed", completed_at=2_000, usage=USAGE)
    batch = batches.get(alice.account_id, "batch_1")
    enqueue(msgspec.to_builtins(status_event(batch)))
    return batch


def listed(caller: Caller, batch_id: str = "batch_1") -> list[dict[str, Any]]:
    reply = caller("GET", f"/batches/{batch_id}/webhook_deliveries")
    assert reply.status == 200, reply.body
    page = reply.json
    ids = [delivery["id"] for delivery in page["data"]]
    assert (page["object"], page["has_more"]) == ("list", False)
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
    deliveries: list[dict[str, Any]] = page["data"]
    return deliveries


@pytest.mark.usefixtures("local")
def test_the_api_shows_each_attempt(alice: Caller, server: Server, ended: Batch) -> None:
    assert listed(alice) == []
    server.behave = lambda exchange: exchange.reply(503)
    before = int(time.time())
    work()
    server.behave = server.hang
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sender, "WHOLE_SECONDS", 0.1)
        work()
    [pending] = listed(alice)
    event = msgspec.to_builtins(status_event(ended))
    at = [attempt.pop("attempted_at") for attempt in pending["attempts"]]
    assert before <= at[0] <= at[1] <= time.time()
    assert before + 25 <= pending.pop("next_attempt_at") <= time.time() + 28
    assert before <= pending.pop("created_at") <= time.time()
    assert pending == {
        "id": deliveries.of_batch("batch_1")[0].id,
        "object": "webhook_delivery",
        "event_id": event["id"],
        "event_type": "batch.completed",
        "url": server.url,
        "status": "pending",
        "attempts": [{"status_code": 503, "error": None}, {"status_code": None, "error": "timeout"}],
    }
    server.behave = lambda exchange: exchange.reply(200)
    assert work()[0]
    [done] = listed(alice)
    assert (done["status"], done["next_attempt_at"]) == ("succeeded", None)
    assert [attempt["status_code"] for attempt in done["attempts"]] == [503, None, 200]
    assert msgspec.to_builtins(msgspec.convert(done, DeliveryResource)) == done


def redeliver(caller: Caller, delivery_id: str, batch_id: str = "batch_1") -> Reply:
    return caller("POST", f"/batches/{batch_id}/webhook_deliveries/{delivery_id}/redeliver")


@pytest.mark.usefixtures("local", "ended")
def test_a_redelivery_is_a_new_round_of_tries(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    while not work()[0]:
        pass
    [failed] = listed(alice)
    assert (failed["status"], len(failed["attempts"])) == ("failed", 9)
    reply = redeliver(alice, failed["id"])
    assert reply.status == 200
    assert reply.json["status"] == "pending"
    assert abs(reply.json["next_attempt_at"] - time.time()) < 5
    for _ in range(8):
        assert not work()[0]
    assert work() == (True, 0.0)
    [failed] = listed(alice)
    assert (failed["status"], len(failed["attempts"])) == ("failed", 18)
    assert len(dead_letters()) == 2
    assert len(server.received) == 18
    assert len({received.headers["webhook-id"] for received in server.received}) == 1
    assert len({received.body for received in server.received}) == 1


@pytest.mark.usefixtures("local", "ended")
def test_a_redriven_dead_letter_is_tried_again(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    for _ in range(2):
        while not work()[0]:
            pass
        [letter] = waiting("webhook-dead-letters")
        waiting("webhook-dead-letters").clear()
        aws.client("sqs").send_message(QueueUrl=settings.webhook_queue_url(), MessageBody=letter.body)
    server.behave = lambda exchange: exchange.reply(200)
    assert work() == (True, 0.0)
    [delivery] = listed(alice)
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [500] * 18 + [200]
    assert len({(received.headers["webhook-id"], received.body) for received in server.received}) == 1
    # Once it is delivered, another copy is ignored.
    aws.client("sqs").send_message(QueueUrl=settings.webhook_queue_url(), MessageBody=letter.body)
    assert work() == (True, 0.0)
    assert listed(alice) == [delivery]


@pytest.mark.usefixtures("local", "ended")
@pytest.mark.parametrize("status", [200, 410])
def test_an_ended_delivery_can_be_redelivered(alice: Caller, server: Server, status: int) -> None:
    server.behave = lambda exchange: exchange.reply(status)
    assert work()[0]
    [before] = listed(alice)
    server.behave = lambda exchange: exchange.reply(204)
    assert redeliver(alice, before["id"]).status == 200
    assert work()[0]
    [after] = listed(alice)
    assert [attempt["status_code"] for attempt in after["attempts"]] == [status, 204]
    assert (after["id"], after["status"]) == (before["id"], "succeeded")
    first, second = server.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


@pytest.mark.usefixtures("local", "ended")
def test_a_pending_delivery_is_a_conflict(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    work()
    [pending] = listed(alice)
    for _ in range(2):
        reply = redeliver(alice, pending["id"])
        assert (reply.status, reply.error["code"], reply.error["param"]) == (409, "delivery_pending", "delivery_id")
    assert listed(alice) == [pending]
    assert len(waiting()) == 1


@pytest.mark.usefixtures("local", "ended")
def test_deliveries_belong_to_one_account(alice: Caller, bob: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    work()
    [delivery] = listed(alice)
    put_batch(alice, "batch_2")
    put_batch(bob, "batch_3")
    assert listed(alice, "batch_2") == listed(bob, "batch_3") == []
    assert bob("GET", "/batches/batch_1/webhook_deliveries").status == 404
    for caller, batch_id, delivery_id in [
        (bob, "batch_1", delivery["id"]),
        (bob, "batch_3", delivery["id"]),
        (alice, "batch_2", delivery["id"]),
        (alice, "batch_1", "whd_0"),
        (alice, "batch_1", "w" * 4_000),
        (alice, "batch_9", delivery["id"]),
    ]:
        assert redeliver(caller, delivery_id, batch_id).status == 404
    assert listed(alice) == [delivery]
    assert waiting() == []


@pytest.mark.usefixtures("local")
def test_a_redelivery_ends_without_a_webhook(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    receivers.set_url(alice.account_id, server.url)
    put_batch(alice, "batch_1")
    set_batch(alice, "batch_1", status="completed", completed_at=2_000)
    enqueue(msgspec.to_builtins(status_event(batches.get(alice.account_id, "batch_1"))))
    assert work()[0]
    receivers.delete_url(alice.account_id)
    [delivery] = listed(alice)
    assert redeliver(alice, delivery["id"]).status == 200
    assert work() == (True, 0.0)
    [delivery] = listed(alice)
    assert (delivery["status"], delivery["next_attempt_at"]) == ("failed", None)
    assert len(server.received) == 1


@pytest.mark.usefixtures("local", "ended")
def test_the_last_attempts_are_kept(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_record, "MAX_ATTEMPTS_KEPT", 3)
    statuses = iter([500, 501, 502, 503, 200])
    server.behave = lambda exchange: exchange.reply(next(statuses))
    while not work()[0]:
        pass
    [delivery] = listed(alice)
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [502, 503, 200]


# --- where webhooks may go ------------------------------------------------------------------------------------------


def lead(monkeypatch: pytest.MonkeyPatch, address: str, at: int | None = None) -> None:
    """Every name resolves to ``address`` from now on, and with ``at`` to this port of it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        sockaddr = (address, at or port, 0, 0) if ":" in address else (address, at or port)
        return [(family, socket.SOCK_STREAM, 6, "", sockaddr)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_loopback_is_refused_by_default(alice: Caller, server: Server) -> None:
    assert not deliver(alice, server.url)[0]
    assert server.received == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"])
def test_a_name_with_a_private_address_fails(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    made: list[Any] = []

    def judged(candidate: str) -> bool:
        made.append(candidate)
        return is_public(candidate)

    is_public = addresses.is_public
    lead(monkeypatch, address)
    monkeypatch.setattr(addresses, "is_public", judged)
    outcome = sender.post("https://hooks.example.com/", b"{}", {})
    assert made[0] == address
    assert outcome == Outcome(error="refused_address")


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://hooks.example.com:8443/", "127.0.0.1"),
        ("https://hooks.example.com/", "::1"),
        ("https://hooks.example.com/", "10.0.0.1"),
        ("http://localhost:9/", "10.0.0.1"),
        ("http://localhost:9/", "1.1.1.1"),
    ],
)
def test_a_local_stack_allows_loopback_alone(monkeypatch: pytest.MonkeyPatch, url: str, address: str) -> None:
    lead(monkeypatch, address)
    assert sender.post(url, b"{}", {}) == Outcome(error="refused_address")


def test_a_slow_name_look_up_times_out(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def resolve(*_: Any, **__: Any) -> list[Any]:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(sender, "WHOLE_SECONDS", 0.2)
    began = time.monotonic()
    outcome = sender.post("https://hooks.example.com/", b"{}", {})
    took = time.monotonic() - began
    over.set()
    assert outcome == Outcome(error="timeout")
    assert took < 5


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority that webhooks trust. Every name and port resolves to 127.0.0.1, as if that were public."""
    authority = trustme.CA()
    sender._tls.cache_clear()
    with authority.cert_pem.tempfile() as certificate:
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        monkeypatch.setattr(addresses, "is_public", lambda _: True)
        yield authority
    sender._tls.cache_clear()


def secure_post(authority: trustme.CA, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Outcome, list[Received]]:
    """What a post to hooks.example.com comes to where the receiver's certificate is for ``name``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    with serving(context) as secure:
        secure.behave = lambda exchange: exchange.reply(200)
        lead(monkeypatch, "127.0.0.1", int(secure.url.rpartition(":")[2]))
        url = "https://hooks.example.com:8443/a%20b;c?d={e}#f"
        outcome = sender.post(url, b"{}", {"Content-Type": "application/json"})
        return outcome, secure.received


def test_a_receiver_shows_its_certificate(trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, [received] = secure_post(trusted, "hooks.example.com", monkeypatch)
    assert outcome.status == 200
    assert (received.path, received.body) == ("/a%20b;c?d=%7Be%7D", b"{}")
    assert received.headers["host"] == "hooks.example.com:8443"
    assert received.headers["content-type"] == "application/json"


def test_another_hosts_certificate_is_refused(trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, received = secure_post(trusted, "other.example.com", monkeypatch)
    assert (outcome, received) == (Outcome(error="connection_failed"), [])


@pytest.mark.usefixtures("trusted")
def test_an_unknown_authority_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, received = secure_post(trustme.CA(), "hooks.example.com", monkeypatch)
    assert (outcome, received) == (Outcome(error="connection_failed"), [])


@pytest.mark.usefixtures("local")
def test_a_response_that_drips_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "WHOLE_SECONDS", 0.5)

    def drip(exchange: Exchange) -> None:
        exchange.handler.close_connection = True
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + 100 * b"A: b\r\n":
                exchange.handler.wfile.write(bytes([byte]))
                time.sleep(0.02)

    server.behave = drip
    assert sender.post(server.url, b"{}", {}) == Outcome(error="timeout")


@pytest.mark.usefixtures("local")
def test_the_next_address_is_tried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(server.url.rpartition(":")[2])
    server.behave = lambda exchange: exchange.reply(200)
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    assert sender.post(f"http://localhost:{port}/", b"{}", {}).status == 200
