"""publish_events and deliver_webhook: one event for each status, delivered until somebody takes it."""

import copy
import json
import socket
import time
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sqs.models import sqs_backends
from nightshift import addresses, aws, settings, webhooks
from nightshift.ids import derived_id
from openai import OpenAI

from tests.integration.support import REGION, Behave, Caller, Exchange, Server, invoke, put_batch, sample

# --- publish_events -------------------------------------------------------------------------------------------------


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The entries that were put on the bus, call by call."""
    calls: list[list[dict[str, Any]]] = []
    put_events = aws.client("events").put_events

    def noted(Entries: list[Any]) -> Any:  # noqa: N803 (boto3's name)
        calls.append(Entries)
        return put_events(Entries=Entries)

    monkeypatch.setattr(aws.client("events"), "put_events", noted)
    return calls


def stream(*changes: tuple[dict[str, Any] | None, dict[str, Any]]) -> dict[str, Any]:
    """Stream records for items that were ``(old, new)``."""
    records = []
    for number, (old, new) in enumerate(changes):
        record = copy.deepcopy(sample("publish_events")["Records"][1])
        record["eventName"] = "MODIFY" if old else "INSERT"
        record["dynamodb"] |= {"NewImage": aws.item(new), "SequenceNumber": str(number)}
        if old:
            record["dynamodb"]["OldImage"] = aws.item(old)
        else:
            del record["dynamodb"]["OldImage"]
        records.append(record)
    return {"Records": records}


def test_the_sample_tells_of_the_batch_and_not_of_its_chunk(bus: list[list[dict[str, Any]]]) -> None:
    assert invoke("publish_events", sample("publish_events")) == {"batchItemFailures": []}
    [[entry]] = bus
    assert (entry["EventBusName"], entry["Source"], entry["DetailType"]) == (
        settings.event_bus(),
        "nightshift",
        "batch.completed",
    )
    detail = json.loads(entry["Detail"])
    webhook = json.loads(sample("deliver_webhook")["Records"][0]["body"])["detail"]
    assert detail == {**webhook, "id": derived_id("evt", detail["batch"]["id"], "completed")}


def test_each_status_is_one_event_with_an_id_of_its_own(alice: Caller, bus: list[list[dict[str, Any]]]) -> None:
    born = put_batch(alice, "batch_1")
    begun = {**born, "status": "in_progress", "in_progress_at": 2_000}
    touched = {**begun, "usage": {"total_tokens": 1}}
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


def test_nothing_to_tell_is_nothing_sent(bus: list[list[dict[str, Any]]]) -> None:
    chunk = {"pk": "batch_1", "sk": "chunk#0000", "completed": 1, "failed": 0, "done": 1}
    assert invoke("publish_events", stream((None, chunk), (chunk, {**chunk, "done": 2}))) == {"batchItemFailures": []}
    removed = stream((None, chunk))
    del removed["Records"][0]["dynamodb"]["NewImage"]
    assert invoke("publish_events", removed | {"eventName": "REMOVE"}) == {"batchItemFailures": []}
    assert bus == []


def test_the_first_event_that_the_bus_did_not_take_is_reported(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [put_batch(alice, f"batch_{number:02d}") for number in range(13)]

    def refuse_one(Entries: list[Any]) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        refused = {"ErrorCode": "ThrottlingException", "ErrorMessage": "-"}
        taken = {"EventId": "1"}
        return {"Entries": [refused if entry["Resources"] == ["batch_11"] else taken for entry in Entries]}

    monkeypatch.setattr(aws.client("events"), "put_events", refuse_one)
    answer = invoke("publish_events", stream(*[(None, item) for item in items]))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "11"}]}


def test_no_call_to_the_bus_is_over_its_limit(alice: Caller, bus: list[list[dict[str, Any]]]) -> None:
    """PutEvents takes 256 KiB in all. A batch that failed with its hundred entries has some 40 KB of them."""
    error = {"code": "invalid_request", "message": "The model " + "m" * 380, "param": "body.model", "line": 1}
    failed = [
        {**put_batch(alice, f"batch_{number}"), "status": "failed", "failed_at": 2_000, "errors": [error] * 100}
        for number in range(10)
    ]
    assert invoke("publish_events", stream(*[(None, item) for item in failed])) == {"batchItemFailures": []}
    assert sum(len(call) for call in bus) == 10
    assert max(sum(len(entry["Detail"].encode()) for entry in call) for call in bus) <= 256 * 1024


def test_an_event_of_a_validated_batch_carries_its_counts(alice: Caller, bus: list[list[dict[str, Any]]]) -> None:
    born = put_batch(alice, "batch_1", lines=3)
    invoke("publish_events", stream((born, {**born, "status": "in_progress", "in_progress_at": 2_000})))
    batch = json.loads(bus[0][0]["Detail"])["batch"]
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 0}


# --- deliver_webhook ------------------------------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_LOCAL_WEBHOOKS", "true")


def detail_for(caller: Caller, callback_url: str | None) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(sample("deliver_webhook")["Records"][0]["body"])["detail"]
    detail["account_id"] = caller.account_id
    detail["batch"]["callback_url"] = callback_url
    return detail


def deliver(caller: Caller, callback_url: str | None, tries: int = 1) -> tuple[bool, float]:
    """Deliver an event through the real queue, as its ``tries``-th try. Whether that was the end of it, and
    how many seconds the message stays hidden from now on."""
    sqs, url = aws.client("sqs"), settings.webhook_queue_url()
    event = sample("deliver_webhook")
    body = json.loads(event["Records"][0]["body"]) | {"detail": detail_for(caller, callback_url)}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]
    event["Records"][0] |= {
        "body": message["Body"],
        "receiptHandle": message["ReceiptHandle"],
        "attributes": {"ApproximateReceiveCount": str(tries)},
    }
    answer = invoke("deliver_webhook", event)
    if not answer["batchItemFailures"]:
        return True, 0.0
    assert answer == {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}
    [kept] = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues["webhooks"]._messages
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return False, kept.visible_at / 1000 - time.time()


@pytest.mark.usefixtures("local")
def test_the_openai_sdk_accepts_what_is_delivered(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    secret = webhooks.put_url(alice.account_id, f"{server.url}/hook")
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
def test_the_batchs_own_url_comes_before_the_accounts(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(204)
    webhooks.put_url(alice.account_id, f"{server.url}/default")
    assert deliver(alice, f"{server.url}/own")[0]
    assert [received.path for received in server.received] == ["/own"]


@pytest.mark.usefixtures("local")
def test_a_batch_with_a_url_is_signed_even_where_the_account_never_set_a_webhook(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    deliver(alice, server.url)
    [secret] = webhooks.receiver(alice.account_id).signing_secrets
    [received] = server.received
    OpenAI(api_key="-").webhooks.verify_signature(received.body, received.headers, secret=secret)


@pytest.mark.usefixtures("local")
def test_after_a_rotation_both_secrets_verify_for_a_day(
    alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behave = lambda exchange: exchange.reply(200)
    old = webhooks.put_url(alice.account_id, server.url)
    new = webhooks.rotate(alice.account_id)
    deliver(alice, None)
    for secret in (old, new):
        OpenAI(api_key="-").webhooks.verify_signature(
            server.received[0].body, server.received[0].headers, secret=secret
        )
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + webhooks.OVERLAP_SECONDS + 1)
    assert webhooks.receiver(alice.account_id).signing_secrets == [new]


@pytest.mark.usefixtures("local")
def test_every_try_has_the_same_id_and_the_same_body(alice: Caller, server: Server) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    webhooks.put_url(alice.account_id, server.url)
    for tries in (1, 2):
        assert not deliver(alice, None, tries)[0]
    first, second = server.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("status", [200, 201, 204, 299, 410])
def test_some_answers_end_it(alice: Caller, server: Server, status: int) -> None:
    server.behave = lambda exchange: exchange.reply(status)
    assert deliver(alice, server.url) == (True, 0.0)


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
def test_any_other_answer_is_tried_again_and_no_redirect_is_followed(
    alice: Caller, server: Server, behave: Behave
) -> None:
    server.behave = behave
    over, hidden = deliver(alice, server.url)
    assert not over
    assert 3 < hidden < 6.5
    assert len(server.received) == 1


@pytest.mark.usefixtures("local")
def test_a_receiver_that_hangs_is_given_up_on(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "WHOLE_SECONDS", 0.2)
    server.behave = server.hang
    assert not deliver(alice, server.url)[0]


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize(("tries", "delay"), [(2, 25), (5, 3_000), (7, 28_800)])
def test_the_gaps_between_tries_grow(alice: Caller, server: Server, tries: int, delay: int) -> None:
    server.behave = lambda exchange: exchange.reply(500)
    over, hidden = deliver(alice, server.url, tries)
    assert not over
    assert delay - 3 < hidden < delay * 1.1 + 1


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("tries", [8, 9, 20])
def test_the_longest_gap_is_one_that_sqs_takes(alice: Caller, server: Server, tries: int) -> None:
    """SQS hides a message for 12 hours in all from the moment it was received: 43,200 s from now is refused."""
    server.behave = lambda exchange: exchange.reply(500)
    over, hidden = deliver(alice, server.url, tries)
    assert not over
    assert 39_600 - 1 < hidden < 43_200 - webhooks.WHOLE_SECONDS


def test_an_account_without_a_receiver_wants_none(alice: Caller) -> None:
    assert deliver(alice, None) == (True, 0.0)
    webhooks.put_url(alice.account_id, "https://hooks.example.com")
    webhooks.delete_url(alice.account_id)
    assert deliver(alice, None) == (True, 0.0)


# --- where webhooks may go ------------------------------------------------------------------------------------------


def test_loopback_is_refused_where_it_is_not_allowed(alice: Caller, server: Server) -> None:
    assert not deliver(alice, server.url)[0]
    assert server.received == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"])
def test_a_public_name_that_leads_into_the_network_is_refused_by_the_address_connected_to(
    alice: Caller, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made: list[Any] = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert host == "hooks.example.com"
        sockaddr = (address, port, 0, 0) if ":" in address else (address, port)
        return [(family, socket.SOCK_STREAM, 6, "", sockaddr)]

    def judged(candidate: str) -> bool:
        made.append(candidate)
        return is_public(candidate)

    is_public = addresses.is_public
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses, "is_public", judged)
    attempt = webhooks.deliver(alice.account_id, detail_for(alice, "https://hooks.example.com/"))
    assert made[0] == address
    assert attempt is not None
    assert attempt.status is None
    assert attempt.error == "refused_address"
