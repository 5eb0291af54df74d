"""validate_batch and run_chunk: from a recorded batch to sealed lines, with a server on loopback for the upstream."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from botocore.model import OperationModel
from nightshift.batches import store as batches
from nightshift.chunks.chunk import Carry
from nightshift.chunks.permit import Permit
from nightshift.chunks.place import Place
from nightshift.chunks.run_limits import RunLimits
from nightshift.core import aws, settings, table
from nightshift.engine import history
from nightshift.engine import slice as chunk_slice
from nightshift.files import store as files
from nightshift.input import layout, plan
from nightshift.routes import health
from nightshift.routes.lease import Lease
from nightshift.routes.level import Level
from nightshift.routes.route import Auth
from nightshift.routes.state import RouteState
from nightshift.upstream import sockets

from tests.integration.support import (
    MODEL,
    Caller,
    Exchange,
    KilledError,
    Received,
    Server,
    apply_route,
    input_lines,
    invoke,
    object_keys,
    request_line,
    route,
    run_chunk,
    set_batch,
)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of two lines, so that five lines are three segments."""
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)


def custom_text(received: Received) -> str:
    return str(received.json["messages"][-1]["content"])


# --- validate_batch -------------------------------------------------------------------------------------------------


@pytest.fixture
def validated_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")


@pytest.mark.usefixtures("validated_later", "upstream")
def test_a_later_validation_plans_and_begins(alice: Caller) -> None:
    batch_id = alice.create(input_lines(5))
    assert not object_keys("work/")
    answer = invoke("validate_batch", alice.start(batch_id))
    assert answer == {
        **alice.task(batch_id),
        "execution": 0,
        "failures": 0,
        "status": "in_progress",
        "run": "chunk",
        "scout": False,
        "task": msgspec.to_builtins((plan.read(batch_id) or [])[0])
        | {"execution": 0, "slice": {"state": None, "wait_seconds": 0, "events": 0}},
        "bucket": settings.bucket(),
        "plan": f"work/{batch_id}/plan.json",
        "chunks": [],
    }
    batch = alice.batch(batch_id)
    assert (batch["model"], batch["request_counts"]) == (MODEL, {"total": 5, "completed": 0, "failed": 0})
    assert object_keys("work/") == [answer["plan"]]


@pytest.mark.usefixtures("upstream")
def test_a_validated_batch_begins_unread(alice: Caller) -> None:
    batch_id = alice.create(input_lines(1))
    aws.client("s3").delete_object(
        Bucket=settings.bucket(), Key=files.key(alice.account_id, alice.batch(batch_id)["input_file_id"])
    )
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "in_progress"


WRONG_FILE = [request_line("a"), "{", request_line("a"), request_line("b", model="other")]


@pytest.mark.usefixtures("validated_later", "upstream")
def test_a_wrong_file_fails_with_creates_errors(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.create(WRONG_FILE)
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "failed"
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "20")
    refused = alice("POST", "/batches", json_body={"input_file_id": alice.upload(WRONG_FILE)})
    batch = alice.batch(batch_id)
    assert batch["errors"] == {"object": "list", "data": refused.error["details"]}
    assert batch["failed_at"]
    assert batch["in_progress_at"] is None
    assert [entry["line"] for entry in batch["errors"]["data"]] == [2, 3, 4]


@pytest.mark.usefixtures("validated_later")
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "another"}, "batch_model_not_supported"),
        ({"batch": False}, "batch_model_not_supported"),
        ({"active": False}, "batch_routing_unavailable"),
    ],
)
def test_a_missing_route_fails_as_in_create(
    alice: Caller, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], code: str
) -> None:
    apply_route(**fields)
    batch_id = alice.create(input_lines(1))
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "failed"
    [entry] = alice.batch(batch_id)["errors"]["data"]
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "20")
    refused = alice("POST", "/batches", json_body={"input_file_id": alice.upload(input_lines(1))}).error
    same = {name: refused[name] for name in ("code", "message", "param")} | {"line": None}
    assert entry == (refused.get("details") or [same])[0]
    assert entry["code"] in (code, "model_not_found")


@pytest.mark.usefixtures("validated_later", "upstream")
@pytest.mark.parametrize("gone", ["record", "bytes"])
def test_a_file_gone_before_validation_fails(alice: Caller, gone: str) -> None:
    batch_id = alice.create(input_lines(1))
    input_id = alice.batch(batch_id)["input_file_id"]
    if gone == "record":
        key = table.encode({"pk": alice.account_id, "sk": input_id})
        aws.client("dynamodb").delete_item(TableName=settings.table("files"), Key=key)
    else:
        aws.client("s3").delete_object(Bucket=settings.bucket(), Key=files.key(alice.account_id, input_id))
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "failed"
    [entry] = alice.batch(batch_id)["errors"]["data"]
    assert (entry["code"], entry["param"]) == ("file_not_found", "input_file_id")


@pytest.mark.usefixtures("validated_later", "upstream")
def test_a_cancelled_batch_is_not_validated(alice: Caller) -> None:
    batch_id = alice.create(input_lines(1))
    alice("POST", f"/batches/{batch_id}/cancel")
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "cancelling"
    assert not object_keys("work/")


@pytest.mark.usefixtures("validated_later", "upstream")
def test_a_cancel_during_validation_wins(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.create(input_lines(1))
    write_plan = plan.write

    def cancel_then_write(*arguments: Any) -> None:
        alice("POST", f"/batches/{batch_id}/cancel")
        write_plan(*arguments)

    monkeypatch.setattr(plan, "write", cancel_then_write)
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "cancelling"
    assert alice.finalize(batch_id)["status"] == "cancelled"


@pytest.mark.usefixtures("validated_later", "upstream")
def test_validating_twice_answers_the_same(alice: Caller) -> None:
    batch_id = alice.create(input_lines(5))
    first = invoke("validate_batch", alice.start(batch_id))
    batch = alice.batch(batch_id)
    assert invoke("validate_batch", alice.start(batch_id)) == first
    assert alice.batch(batch_id) == batch


# --- run_chunk ------------------------------------------------------------------------------------------------------


def test_a_chunk_is_answered_sealed_and_counted(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(5))
    assert alice.run_chunks(batch_id) == [{"state": "done", "wait_seconds": 0, "carry": {}, "events": 9}]
    assert object_keys(f"work/{batch_id}/sealed/") == [f"work/{batch_id}/sealed/{line:05d}" for line in (0, 2, 4)]
    assert alice.batch(batch_id)["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    batch = alice.finalize(batch_id)
    lines = alice.lines(batch["output_file_id"])
    assert [line["custom_id"] for line in lines] == ["r0", "r1", "r2", "r3", "r4"]
    contents = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
    assert contents == [f"Text {number}." for number in range(5)]
    assert batch["usage"] == {
        "input_tokens": 35,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 15,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 50,
    }


def test_each_side_gets_its_own_model_name(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin([request_line("a", temperature=0.5, extra={"model": "kept"})])
    alice.run_chunks(batch_id)
    [sent] = upstream.received
    assert sent.path == "/chat/completions"
    assert sent.json == {
        "model": "upstream-model",
        "messages": [{"role": "user", "content": "Hello."}],
        "temperature": 0.5,
        "extra": {"model": "kept"},
    }
    [line] = alice.lines(alice.finalize(batch_id)["output_file_id"])
    assert line["response"]["body"]["model"] == MODEL
    assert sent.headers["idempotency-key"] == line["id"]


def test_only_the_key_of_the_route_is_sent(alice: Caller, server: Server) -> None:
    aws.client("secretsmanager").create_secret(Name="nightshift/demo", SecretString="upstream-key")
    apply_route(server.url, api_key_secret="nightshift/demo")
    batch_id = alice.begin(input_lines(1))
    alice.run_chunks(batch_id)
    assert server.received[0].headers["authorization"] == "Bearer upstream-key"
    assert alice.api_key not in str(server.received)


@pytest.mark.parametrize("secret", [None, "", " \n", "sk-\nX-Evil: 1", "clé"])
def test_a_route_without_a_key_burns_no_line(
    alice: Caller, server: Server, secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FIRST_PAUSE", 0.0)
    if secret:
        aws.client("secretsmanager").create_secret(Name="nightshift/test", SecretString=secret)
    elif secret is not None:
        aws.client("secretsmanager").create_secret(Name="nightshift/test", SecretBinary=b"sk-upstream")
    apply_route(server.url, api_key_secret="nightshift/test")
    batch_id = alice.begin(input_lines(2))
    [answer] = alice.run_chunks(batch_id)
    assert (answer["state"], answer["wait_seconds"]) == ("wait", 1)
    assert invoke("finalize_batch", alice.round(batch_id, "park", wait_seconds=30))["goes_on"]
    assert server.received == []
    if secret is None:
        aws.client("secretsmanager").create_secret(Name="nightshift/test", SecretString="sk-new")
    else:
        aws.client("secretsmanager").update_secret(SecretId="nightshift/test", SecretString="sk-new")
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert alice.finalize(batch_id)["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


def test_space_around_a_key_is_not_sent(alice: Caller, server: Server) -> None:
    aws.client("secretsmanager").create_secret(Name="nightshift/test", SecretString="sk-upstream\n")
    apply_route(server.url, api_key_secret="nightshift/test")
    alice.run_chunks(alice.begin(input_lines(1)))
    assert server.received[0].headers["authorization"] == "Bearer sk-upstream"


def test_a_deleted_input_is_named_as_the_cause(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(2))
    file_id = alice("GET", f"/batches/{batch_id}").json["input_file_id"]
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=files.key(alice.account_id, file_id))
    alice.run_chunks(batch_id)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert [error["message"] for error in batch["errors"]["data"]] == [
        "The input file was deleted while the batch ran."
    ]
    assert [line["custom_id"] for line in alice.lines(batch["error_file_id"])] == [None, None]


def test_a_batch_without_plan_and_input_ends(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(2))
    for found in aws.client("s3").list_objects_v2(Bucket=settings.bucket())["Contents"]:
        aws.client("s3").delete_object(Bucket=settings.bucket(), Key=found["Key"])
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert "plan and its input were deleted" in batch["errors"]["data"][0]["message"]


@pytest.mark.usefixtures("upstream")
def test_a_deleted_plan_is_remade_for_the_map(alice: Caller) -> None:
    batch_id = alice.create(input_lines(5))
    planned = plan.read(batch_id)
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=plan.key(batch_id))
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "in_progress"
    assert plan.read(batch_id) == planned


def test_a_deleted_plan_is_remade_at_the_end(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(3))
    alice.run_chunks(batch_id)
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=plan.key(batch_id))
    batch = alice.finalize(batch_id)
    assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert batch["errors"] is None


def test_a_final_error_has_the_upstreams_body(alice: Caller, upstream: Server) -> None:
    def refuse_odd(exchange: Exchange) -> None:
        if custom_text(exchange.received) in ("Text 1.", "Text 3."):
            body = {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": "no"}}
            exchange.reply(422, json.dumps(body).encode(), x_request_id="req_theirs")
        else:
            exchange.complete()

    upstream.behave = refuse_odd
    batch_id = alice.begin(input_lines(5))
    alice.run_chunks(batch_id)
    batch = alice.finalize(batch_id)
    assert [line["custom_id"] for line in alice.lines(batch["output_file_id"])] == ["r0", "r2", "r4"]
    errors = alice.lines(batch["error_file_id"])
    assert [line["custom_id"] for line in errors] == ["r1", "r3"]
    assert errors[0]["error"] is None
    assert errors[0]["response"] == {
        "status_code": 422,
        "request_id": "req_theirs",
        "body": {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": "no"}},
    }
    assert len(upstream.received) == 5


def test_a_try_after_an_answer_has_a_new_key(alice: Caller, upstream: Server) -> None:
    def refuse_once(exchange: Exchange) -> None:
        if len(upstream.received) == 1:
            exchange.reply(429, b"slow down", retry_after_ms="1")
        else:
            exchange.complete()

    upstream.behave = refuse_once
    batch_id = alice.begin(input_lines(1))
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert alice.batch(batch_id)["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    first, second = upstream.received
    assert second.headers["idempotency-key"] == first.headers["idempotency-key"] + "-1"


def test_a_long_pause_is_carried_over(alice: Caller, upstream: Server) -> None:
    upstream.behave = lambda exchange: exchange.reply(429, retry_after="60")
    batch_id = alice.begin(input_lines(1))
    [answer] = alice.run_chunks(batch_id)
    assert answer["state"] == "wait"
    assert 1 <= answer["wait_seconds"] <= 20
    upstream.behave = Exchange.complete
    [task] = plan.read(batch_id) or []
    again = msgspec.to_builtins(task) | {"slice": answer}
    assert run_chunk(again)["state"] == "wait"
    assert len(upstream.received) == 1
    answer["carry"] = {}  # a minute later
    RouteState(route().id).put_level(Level(at=time.time() + 1))
    assert run_chunk(again)["state"] == "done"


def test_a_full_history_is_left(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(1))
    [task] = msgspec.to_builtins(plan.read(batch_id))
    last = {"state": "wait", "carry": {"latencies": {"1": 3}}, "events": history.MAX_EVENTS - 20}
    answer = run_chunk(task | {"slice": last}, retries=4)
    assert answer == last | {"state": "park", "wait_seconds": 0, "events": history.MAX_EVENTS + 1}
    assert upstream.received == []
    assert run_chunk(task | {"slice": last}, retries=3)["state"] == "done"


def test_a_parked_chunk_keeps_its_carry(alice: Caller, upstream: Server) -> None:
    """Another execution goes on with the tries that a line has left."""
    upstream.behave = lambda exchange: exchange.reply(500)
    batch_id = alice.begin(input_lines(1))
    batches.put_carry(batch_id, 0, msgspec.json.encode(Carry(lines={0: (4, 0.0)})).decode())
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert len(upstream.received) == 1


def test_a_slice_without_time_sends_nothing(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(1))
    assert alice.run_chunks(batch_id, seconds=20)[0]["state"] == "more"
    assert not upstream.received


@pytest.mark.parametrize("header", ["caf\xe9", "\xff\xfe", "x" * 4000])
def test_a_strange_request_id_stops_no_chunk(alice: Caller, upstream: Server, header: str) -> None:
    upstream.behave = lambda exchange: exchange.reply(200, b"{}", x_request_id=header)
    batch_id = alice.begin(input_lines(1))
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert len(alice.lines(alice.finalize(batch_id)["output_file_id"])) == 1


def test_a_done_chunk_run_again_does_nothing(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(5))
    alice.run_chunks(batch_id)
    sent, kept = len(upstream.received), object_keys("work/")
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert (len(upstream.received), object_keys("work/")) == (sent, kept)
    assert alice.batch(batch_id)["request_counts"] == {"total": 5, "completed": 5, "failed": 0}


def test_a_crash_resends_only_unstored_lines(alice: Caller, upstream: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_slice, "LIMITS", RunLimits(store_seconds=0.05))
    kept, stuck = threading.Event(), "Text 3."
    progress = batches.put_progress

    def crash_when_kept(*chunk: Any, **done: Any) -> None:
        progress(*chunk, **done)
        if done["completed"] == 4:
            kept.set()
            raise KilledError

    upstream.behave = lambda exchange: (
        upstream.hang(exchange) if custom_text(exchange.received) == stuck else exchange.complete()
    )
    batch_id = alice.begin(input_lines(5))
    with monkeypatch.context() as patch:
        patch.setattr(batches, "put_progress", crash_when_kept)
        with pytest.raises(BaseExceptionGroup):
            alice.run_chunks(batch_id)
    assert kept.is_set()
    assert object_keys(f"work/{batch_id}/parts/")
    upstream.received.clear()
    upstream.behave = Exchange.complete
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert [custom_text(received) for received in upstream.received] == [stuck]
    batch = alice.finalize(batch_id)
    assert batch["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    assert [line["custom_id"] for line in alice.lines(batch["output_file_id"])] == ["r0", "r1", "r2", "r3", "r4"]


def test_two_workers_make_each_line_once(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(20))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(alice.run_chunks, batch_id) for _ in range(2)]
    if "done" not in [run.result()[0]["state"] for run in runs]:
        # Each has made way for the other: one has the chunk's lease, and the other its results. Both come again.
        assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert alice.batch(batch_id)["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    batch = alice.finalize(batch_id)
    lines = alice.lines(batch["output_file_id"])
    assert [line["custom_id"] for line in lines] == [f"r{number}" for number in range(20)]
    assert batch["usage"]["total_tokens"] == 200


def test_only_the_first_run_of_a_chunk_looks_for_no_results(alice: Caller, upstream: Server) -> None:
    calls: list[str] = []
    events = aws.client("s3").meta.events
    names = [f"before-call.s3.{operation}" for operation in ("HeadObject", "ListObjectsV2")]

    def note(model: OperationModel, **_: Any) -> None:
        calls.append(model.name)

    for name in names:
        events.register(name, note)
    try:
        batch_id = alice.begin(input_lines(5))
        calls.clear()
        assert alice.run_chunks(batch_id)[0]["state"] == "done"
        assert calls == []
        assert alice.run_chunks(batch_id)[0]["state"] == "done"
        assert calls == ["HeadObject"] * 3, "one for each segment"
        calls.clear()
        old = alice.begin(input_lines(1))
        set_batch(alice, old, created_at=int(time.time()) - 600)
        calls.clear()
        assert alice.run_chunks(old)[0]["state"] == "done"
        assert calls == ["HeadObject", "ListObjectsV2"], "its tables may have been restored"
    finally:
        for name in names:
            events.unregister(name, note)
    assert len(upstream.received) == 6


def test_an_older_run_stops_and_is_not_done(alice: Caller, upstream: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_slice, "LIMITS", RunLimits(store_seconds=0.05, last_answers_seconds=0.2))
    batch_id = alice.begin(input_lines(3))

    def replace_then_hang(exchange: Exchange) -> None:
        batches.begin_run(batch_id, 0, "run_newer")
        upstream.hang(exchange)

    upstream.behave = replace_then_hang
    assert alice.run_chunks(batch_id)[0]["state"] == "more"
    assert alice.batch(batch_id)["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    upstream.behave = Exchange.complete
    assert alice.run_chunks(batch_id)[0]["state"] == "done"


def test_an_older_execution_runs_no_chunk(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(1))
    set_batch(alice, batch_id, execution=2)
    [task] = msgspec.to_builtins(plan.read(batch_id))
    assert run_chunk(task | {"execution": 1})["state"] == "done"
    assert not upstream.received
    assert run_chunk(task | {"execution": 2})["state"] == "done"
    assert upstream.received


def test_a_batch_late_to_validate_fails(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_route()
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    batch_id = alice.create(input_lines(1))
    set_batch(alice, batch_id, expires_at=1)
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "failed"
    [error] = alice.batch(batch_id)["errors"]["data"]
    assert error["message"] == "The batch could not be validated before its deadline."


def test_chunks_share_the_routes_concurrency(alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "WORKER_CONCURRENCY", 2)
    monkeypatch.setattr(layout, "ROUNDS_PER_WORKER", 1)
    apply_route(server.url, max_concurrency=4)
    batch_id = alice.begin(input_lines(9))
    assert [answer["state"] for answer in alice.run_chunks(batch_id)] == ["done", "done"]
    batch = alice.finalize(batch_id)
    assert [line["custom_id"] for line in alice.lines(batch["output_file_id"])] == [f"r{n}" for n in range(9)]


def test_a_worker_sends_no_more_at_once_than_it_may_open(
    alice: Caller, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, counting, active, most = threading.Barrier(3), threading.Lock(), 0, 0
    asked: list[int] = []
    take = Place.take

    def watched(self: Place, wanted: int, *more: Any) -> Permit:
        asked.append(wanted)
        return take(self, wanted, *more)

    def answer(exchange: Exchange) -> None:
        nonlocal active, most
        with counting:
            active += 1
            most = max(most, active)
        together.wait(30)  # until the others have come
        with counting:
            active -= 1
        exchange.complete()

    server.behave = answer
    apply_route(server.url)
    monkeypatch.setattr(sockets, "room", lambda: 3)
    monkeypatch.setattr(Place, "take", watched)
    assert [answer["state"] for answer in alice.run_chunks(alice.begin(input_lines(9)))] == ["done"]
    assert most == max(asked) == 3


@pytest.mark.usefixtures("upstream")
def test_a_cancelling_batch_sends_nothing(alice: Caller, server: Server) -> None:
    batch_id = alice.begin(input_lines(1))
    alice("POST", f"/batches/{batch_id}/cancel")
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert not server.received


@pytest.mark.parametrize("by", ["its worker", "its end", "its deadline"])
def test_who_has_waited_in_vain_keeps_nobody_waiting(alice: Caller, upstream: Server, by: str) -> None:
    """A batch that ends while it waits for room at its route was a queue's head until its lease was over."""
    first = alice.begin(input_lines(3))
    batch = batches.get(alice.account_id, first)
    assert batch.plan
    state = RouteState(batch.plan.route.id)
    waiting = Lease(
        worker="w",
        account_id=alice.account_id,
        batch_id=first,
        batch_created_at=1,
        chunk=0,
        wanted=10_000,
        since=1.0,
        expires_at=time.time() + 100,
    )
    assert state.put(waiting, None)
    if by == "its deadline":
        set_batch(alice, first, expires_at=1)
    else:
        alice("POST", f"/batches/{first}/cancel")
    if by == "its worker":
        assert alice.run_chunks(first)[0]["state"] == "done"
    else:
        assert alice.finalize(first)["status"] in ("cancelled", "expired")
    assert state.read().leases == []
    second = alice.begin(input_lines(2))
    assert alice.run_chunks(second)[0]["state"] == "done"
    assert alice.finalize(second)["request_counts"]["completed"] == 2


def test_a_chunk_past_the_deadline_sends_nothing(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, expires_at=1)
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    assert not upstream.received
    assert alice.finalize(batch_id)["status"] == "expired"


def test_a_cancelled_chunk_keeps_its_answers(alice: Caller, upstream: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_slice, "LIMITS", RunLimits(store_seconds=0.05, last_answers_seconds=0.2))
    batch_id = alice.begin(input_lines(3))

    def cancel_then_hang(exchange: Exchange) -> None:
        if custom_text(exchange.received) == "Text 1.":
            alice("POST", f"/batches/{batch_id}/cancel")
            upstream.hang(exchange)
        else:
            exchange.complete()

    upstream.behave = cancel_then_hang
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    batch = alice.finalize(batch_id)
    assert batch["status"] == "cancelled"
    assert [line["custom_id"] for line in alice.lines(batch["output_file_id"])] == ["r0", "r2"]
    [left] = alice.lines(batch["error_file_id"])
    assert (left["custom_id"], left["error"]["code"]) == ("r1", "batch_cancelled")


def test_a_route_shapes_its_requests(alice: Caller, server: Server) -> None:
    aws.client("secretsmanager").create_secret(Name="nightshift/azure", SecretString="azure-key")
    apply_route(
        f"{server.url}/openai/deployments/d",
        auth=Auth("nightshift/azure", header="api-key", scheme=""),
        query={"api-version": "2024-10-21"},
        headers={"x-team": "batch"},
        extra_body={"service_tier": "flex"},
    )
    batch_id = alice.begin(input_lines(2))
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    for received in server.received:
        assert received.path == "/openai/deployments/d/chat/completions?api-version=2024-10-21"
        assert (received.headers["api-key"], received.headers["x-team"]) == ("azure-key", "batch")
        assert "authorization" not in received.headers
        assert received.json["service_tier"] == "flex"
