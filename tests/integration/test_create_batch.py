"""POST /v1/batches: a validating batch with a plan and an execution, or an error without any effect."""

import json
import time
from typing import Any

import msgspec
import pytest
from nightshift.accounts import store as accounts
from nightshift.batches import create as create_module
from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.core import aws, settings
from nightshift.core.table import Table
from nightshift.files import store as files
from nightshift.files.record import File
from nightshift.input import layout, plan
from nightshift.routes import store as routes
from nightshift.routes.route import Route

from tests.integration.support import (
    MODEL,
    Caller,
    KilledError,
    Reply,
    apply_route,
    input_lines,
    invoke,
    object_keys,
    request_line,
    route,
    table_size,
)


@pytest.fixture(autouse=True)
def a_route() -> None:
    apply_route()


def executions() -> list[str]:
    found = aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())
    return [execution["name"] for execution in found["executions"]]


def create(caller: Caller, lines: list[str] | bytes, **body: Any) -> Reply:
    return caller("POST", "/batches", json_body={"input_file_id": caller.upload(lines), **body})


def nothing_happened() -> bool:
    return table_size("batches") == 0 and not executions() and not object_keys("work/")


# --- a batch --------------------------------------------------------------------------------------------------------


def test_a_new_batch_has_every_field(alice: Caller) -> None:
    file_id = alice.upload(input_lines(3))
    reply = alice("POST", "/batches", json_body={"input_file_id": file_id, "metadata": {"team": "search"}})
    assert reply.status == 200
    batch = reply.json
    created_at = batch["created_at"]
    assert abs(created_at - time.time()) < 5
    assert batch.pop("id").startswith("batch_")
    assert batch == {
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": MODEL,
        "errors": None,
        "input_file_id": file_id,
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": created_at,
        "expires_at": created_at + 86_400,
        "in_progress_at": None,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": None,
        "answer_seconds": None,
        "usage": None,
        "metadata": {"team": "search"},
        "callback_url": None,
        "retry_of": None,
    }


def test_create_and_retrieve_show_the_same_batch(alice: Caller) -> None:
    reply = create(alice, input_lines(1), callback_url="https://hooks.example.com/x?y=1", metadata={})
    begun = {"status", "in_progress_at", "request_counts"}
    shown = alice.batch(reply.json["id"])
    assert {name: shown[name] for name in shown.keys() - begun} == {
        name: reply.json[name] for name in shown.keys() - begun
    }
    assert (reply.json["status"], shown["status"]) == ("validating", "in_progress")


def test_a_batch_has_plan_route_and_execution(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)
    lines = input_lines(5)
    batch_id = alice.create(lines)
    [task] = plan.read(batch_id) or []
    assert (task.account_id, task.batch_id, task.chunk) == (alice.account_id, batch_id, 0)
    assert [(span.first_line, span.lines) for span in task.segments] == [(0, 2), (2, 2), (4, 1)]
    batch = batches.get(alice.account_id, batch_id)
    content = files.read_range(alice.account_id, batch.input_file_id, task.segments[1].start, task.segments[1].end)
    assert content.decode().splitlines() == lines[2:4]
    assert locked_route(alice, batch_id).upstream_model == "upstream-model"
    [execution] = aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())["executions"]
    described = aws.client("stepfunctions").describe_execution(executionArn=execution["executionArn"])
    first = {"execution": 0, "slice": {"state": None, "wait_seconds": 0, "events": 0}}
    only = {"run": "chunk", "scout": False, "chunks": [], "task": msgspec.to_builtins(task) | first}
    assert (described["name"], json.loads(described["input"])) == (batch_id, alice.start(batch_id) | only)


def locked_route(caller: Caller, batch_id: str) -> Route:
    batch = batches.get(caller.account_id, batch_id)
    assert batch.plan is not None
    return batch.plan.route


def test_the_route_of_a_batch_stays_locked(alice: Caller) -> None:
    batch_id = alice.create(input_lines(1))
    apply_route(upstream_model="another")
    assert locked_route(alice, batch_id).upstream_model == "upstream-model"


def test_the_first_active_route_is_chosen(alice: Caller) -> None:
    given: dict[str, dict[str, Any]] = {
        "second": {"priority": 20},
        "first": {"priority": 10},
        "off": {"priority": 1, "active": False},
    }
    routes.apply(route(provider=provider, **fields) for provider, fields in given.items())
    batch_id = alice.create(input_lines(1))
    assert locked_route(alice, batch_id).provider == "first"


@pytest.mark.parametrize(("separator", "end"), [("\n", ""), ("\r\n", "\r\n"), ("\r\n", "")])
def test_line_ends_may_be_crlf_or_missing(alice: Caller, separator: str, end: str) -> None:
    reply = create(alice, (separator.join(input_lines(3)) + end).encode())
    assert reply.status == 200
    assert batches.open_of(alice.account_id)[0].lines == 3


@pytest.mark.parametrize("field", ["endpoint", "completion_window", "metadata", "callback_url", "output_expires_after"])
def test_an_optional_field_may_be_left_out(alice: Caller, field: str) -> None:
    whole = {
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"k" * 64: "v" * 512} | {f"k{number}": "" for number in range(15)},
        "callback_url": "https://hooks.example.com/",
        "output_expires_after": {"anchor": "created_at", "seconds": 3600},
    }
    assert create(alice, input_lines(1), **whole).status == 200
    del whole[field]
    assert create(alice, input_lines(1), **whole).status == 200


# --- bad files ------------------------------------------------------------------------------------------------------


def test_lines_of_a_second_model_are_listed(alice: Caller) -> None:
    lines = [request_line("a"), request_line("b", model="m2"), request_line("c"), request_line("d", model="m3")]
    reply = create(alice, lines)
    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == ("batch_multiple_models", "input_file_id")
    assert [(d["code"], d["param"], d["line"]) for d in reply.error["details"]] == [
        ("model_mismatch", "body.model", 2),
        ("model_mismatch", "body.model", 4),
    ]
    assert nothing_happened()


def test_all_faults_are_listed_at_once(alice: Caller) -> None:
    reply = create(alice, [request_line("a"), request_line("b"), '{"custom_id": ', request_line("a")])
    assert reply.status == 400
    assert (reply.error["code"], reply.error["type"]) == ("batch_invalid_jsonl", "invalid_request_error")
    assert [(d["code"], d["param"], d["line"]) for d in reply.error["details"]] == [
        ("invalid_json_line", None, 3),
        ("duplicate_custom_id", "custom_id", 4),
    ]
    assert all(set(detail) == {"code", "message", "param", "line"} for detail in reply.error["details"])
    assert nothing_happened()


WHOLE = json.loads(request_line("a"))
BODY = WHOLE["body"]


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        pytest.param({**WHOLE, "custom_id": None}, "missing_required_parameter", "custom_id", id="custom_id"),
        pytest.param({**WHOLE, "method": "GET"}, "invalid_method", "method", id="method"),
        pytest.param({**WHOLE, "url": "/v1/embeddings"}, "invalid_url", "url", id="url"),
        pytest.param({**WHOLE, "body": None}, "missing_required_parameter", "body", id="body"),
        pytest.param(
            {**WHOLE, "body": {**BODY, "stream": True}}, "streaming_unsupported", "body.stream", id="body.stream"
        ),
        pytest.param({**WHOLE, "body": {**BODY, "messages": []}}, "invalid_request", "body.messages", id="messages"),
        pytest.param({**WHOLE, "body": {"messages": [{}]}}, "invalid_request", "body.model", id="model"),
        pytest.param({**WHOLE, "body": {**BODY, "x": "a" * 16_800_000}}, "line_too_long", None, id="length"),
    ],
)
def test_each_fault_of_a_line_has_openais_code(
    alice: Caller, line: dict[str, Any], code: str, param: str | None
) -> None:
    reply = create(alice, [request_line("first"), json.dumps(line)])
    assert (reply.status, reply.error["code"]) == (400, "batch_invalid_jsonl")
    [detail] = reply.error["details"]
    assert (detail["code"], detail["param"], detail["line"]) == (code, param, 2)


@pytest.mark.parametrize(
    "content",
    [b"\n", b"\xef\xbb\xbf" + request_line("a").encode(), request_line("a").encode("utf-16"), b"\xff\n", b"[]\n"],
)
def test_a_file_without_jsonl_is_refused(alice: Caller, content: bytes) -> None:
    reply = create(alice, content)
    assert (reply.status, reply.error["code"]) == (400, "batch_invalid_jsonl")
    assert reply.error["details"]
    assert nothing_happened()


def test_at_most_a_hundred_faults_are_listed(alice: Caller) -> None:
    assert len(create(alice, ["{"] * 150).error["details"]) == 100


def test_line_50_001_is_refused(alice: Caller) -> None:
    line = request_line("%d").encode() + b"\n"
    reply = create(alice, b"".join(line % number for number in range(50_001)))
    assert (reply.status, reply.error["code"]) == (400, "batch_invalid_jsonl")
    assert reply.error["details"][0]["line"] == 50_001


def test_a_file_over_the_limit_is_refused_unread(alice: Caller) -> None:
    size = 200 * 1024 * 1024 + 1
    files.record(alice.account_id, "file_big", filename="x", purpose="batch", size=size, expires_at=None)
    reply = alice("POST", "/batches", json_body={"input_file_id": "file_big"})
    assert (reply.status, reply.error["code"]) == (400, "batch_invalid_jsonl")


# --- no file, no route ----------------------------------------------------------------------------------------------


def test_every_missing_file_is_the_same_404(alice: Caller, bob: Caller) -> None:
    bobs = bob.upload(input_lines(1))
    expired = alice.upload(input_lines(1))
    files.record(alice.account_id, expired, filename="x", purpose="batch", size=1, expires_at=1)
    deleted = alice.upload(input_lines(1))
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=files.key(alice.account_id, deleted))
    given = [bobs, expired, deleted, "file_unknown", "", "x" * 5_000, "file_\u00e9", "batch_1"]
    replies = [alice("POST", "/batches", json_body={"input_file_id": file_id}) for file_id in given]
    assert {(reply.status, reply.body) for reply in replies} == {(404, replies[0].body)}
    assert (replies[0].error["code"], replies[0].error["param"]) == ("file_not_found", "input_file_id")
    assert nothing_happened()


def test_an_output_file_as_input_is_refused(alice: Caller) -> None:
    file = files.record(alice.account_id, "file_1", filename="x", purpose="batch_output", size=3, expires_at=None)
    reply = alice("POST", "/batches", json_body={"input_file_id": file.id})
    assert (reply.status, reply.error["param"]) == (400, "input_file_id")


@pytest.mark.parametrize("fields", [{"model": "another"}, {"batch": False}])
def test_a_model_without_a_route_is_refused(alice: Caller, fields: dict[str, Any]) -> None:
    apply_route(**fields)
    reply = create(alice, [request_line("a", model="unrouted" if "model" in fields else MODEL)])
    assert (reply.status, reply.error["code"]) == (400, "batch_model_not_supported")
    assert reply.error["param"] == "input_file_id"
    assert nothing_happened()


def test_a_model_without_an_active_sku_is_503(alice: Caller) -> None:
    apply_route(active=False)
    reply = create(alice, input_lines(1))
    assert (reply.status, reply.error["code"]) == (503, "batch_routing_unavailable")
    assert nothing_happened()


@pytest.mark.parametrize("model", ["m" * 5_000, "\U0001f600" * 1_000, "a\u0000b"], ids=["long", "emoji", "null"])
def test_a_strange_model_name_is_refused(alice: Caller, model: str) -> None:
    reply = create(alice, [request_line("a", model=model)])
    assert (reply.status, reply.error["code"]) == (400, "batch_model_not_supported")


# --- bad bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("", "input_file_id"),
        ("{}", "input_file_id"),
        ("{", None),
        ("[]", None),
        ("null", None),
        ('{"input_file_id": "\ud800"}', None),
        ('{"input_file_id": "\\ud800"}', None),
        ('{"input_file_id": 7}', "input_file_id"),
        ('{"input_file_id": null}', "input_file_id"),
    ],
)
def test_a_body_that_names_no_file_is_refused(alice: Caller, body: str, param: str | None) -> None:
    reply = alice("POST", "/batches", body=body)
    assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("endpoint", "/v1/embeddings", "endpoint"),
        ("completion_window", "1h", "completion_window"),
        ("unknown", 1, "unknown"),
        ("metadata", [], "metadata"),
        ("metadata", {f"k{number}": "" for number in range(17)}, "metadata"),
        ("metadata", {"k" * 65: ""}, "metadata." + "k" * 65),
        ("metadata", {"k": "v" * 513}, "metadata.k"),
        ("metadata", {"k": 1}, "metadata.k"),
        ("callback_url", "http://hooks.example.com", "callback_url"),
        ("callback_url", "https://127.0.0.1/", "callback_url"),
        ("callback_url", "https://user@hooks.example.com/", "callback_url"),
        ("callback_url", "https://hooks.example.com:22/", "callback_url"),
        ("callback_url", "", "callback_url"),
        ("callback_url", "https://hooks.example.com/" + "x" * 2_048, "callback_url"),
        ("output_expires_after", {"anchor": "created_at", "seconds": 3599}, "output_expires_after.seconds"),
        ("output_expires_after", {"anchor": "created_at", "seconds": 2_592_001}, "output_expires_after.seconds"),
        ("output_expires_after", {"anchor": "now", "seconds": 3600}, "output_expires_after.anchor"),
    ],
)
def test_a_bad_field_is_refused_by_name(alice: Caller, field: str, value: Any, param: str) -> None:
    reply = create(alice, input_lines(1), **{field: value})
    assert (reply.status, reply.error["param"], reply.error["type"]) == (400, param, "invalid_request_error")
    assert nothing_happened()


# --- starting -------------------------------------------------------------------------------------------------------


def test_a_lost_start_keeps_the_batch(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The execution may be running although StartExecution's answer was lost; otherwise the sweep starts it."""
    monkeypatch.setenv("STATE_MACHINE", settings.state_machine() + "-gone")
    reply = create(alice, input_lines(1))
    assert (reply.status, reply.json["status"]) == (200, "validating")
    assert [batch["id"] for batch in alice("GET", "/batches").json["data"]] == [reply.json["id"]]


def test_no_time_to_validate_leaves_it_for_later(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    batch = create(alice, ["not JSON"]).json
    assert (batch["status"], batch["model"], batch["request_counts"]) == ("validating", None, None)
    assert not object_keys("work/")
    assert executions() == [batch["id"]]


def test_a_slow_file_is_validated_later(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0.000001")
    assert create(alice, input_lines(1)).json["request_counts"] is None


# --- Idempotency-Key ------------------------------------------------------------------------------------------------


def keyed(caller: Caller, file_id: str, **body: Any) -> Reply:
    headers = {"Idempotency-Key": "the key"}
    return caller("POST", "/batches", json_body={"input_file_id": file_id, **body}, headers=headers)


def test_a_plan_that_cannot_be_written_is_written_later(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(plan, "write", fails)
        batch_id = alice.create(input_lines(2))
    assert (executions(), plan.read(batch_id)) == ([], None)
    assert invoke("validate_batch", alice.start(batch_id))["run"] == "chunk"
    assert plan.read(batch_id)


def test_the_second_of_two_calls_with_one_key_leaves_the_plan(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SEGMENT_LINES", 1)
    monkeypatch.setattr(layout, "WORKER_CONCURRENCY", 1)
    monkeypatch.setattr(layout, "ROUNDS_PER_WORKER", 1)
    file_id = alice.upload(input_lines(4))
    batch_id = keyed(alice, file_id).json["id"]
    before = plan.read(batch_id)
    apply_route(max_concurrency=1)
    monkeypatch.setattr(create_module, "find_by_key", lambda *_: (batch_id, None))  # it looked before the first wrote
    assert keyed(alice, file_id).json["id"] == batch_id
    assert plan.read(batch_id) == before
    assert len(before or []) > 1


@pytest.mark.parametrize("killed_at", ["store.put", "executions.start"])
def test_a_key_outlives_a_killed_call(alice: Caller, monkeypatch: pytest.MonkeyPatch, killed_at: str) -> None:
    file_id = alice.upload(input_lines(2))

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(f"nightshift.batches.{killed_at}", killed)
        with pytest.raises(KilledError):
            keyed(alice, file_id)
    recorded = table_size("batches")
    reply = keyed(alice, file_id)
    assert reply.status == 200
    assert (table_size("batches"), executions()) == (1, [reply.json["id"]])
    if recorded:
        assert keyed(alice, file_id, metadata={"other": "body"}).error["code"] == "idempotency_key_reused"
    assert keyed(alice, file_id).json["id"] == reply.json["id"]


def test_a_refused_key_is_free_for_another_body(alice: Caller) -> None:
    assert keyed(alice, alice.upload(["{"])).status == 400
    file_id = alice.upload(input_lines(1))
    reply = keyed(alice, file_id)
    assert reply.status == 200
    assert keyed(alice, file_id).json["id"] == reply.json["id"]
    assert keyed(alice, alice.upload(input_lines(1))).error["code"] == "idempotency_key_reused"
    assert table_size("batches") == 1


@pytest.mark.parametrize(("other", "code"), [(False, None), (True, "idempotency_key_reused")])
def test_two_calls_with_a_key_make_one_batch(
    alice: Caller, monkeypatch: pytest.MonkeyPatch, other: bool, code: str | None
) -> None:
    file_id = alice.upload(input_lines(1))
    put = batches.put
    first: list[Reply] = []

    def another_is_quicker(batch: Batch) -> bool:
        monkeypatch.setattr(batches, "put", put)
        first.append(keyed(alice, file_id))
        return put(batch)

    monkeypatch.setattr(batches, "put", another_is_quicker)
    reply = keyed(alice, file_id, **({"metadata": {"a": "b"}} if other else {}))
    assert (reply.error["code"] if other else reply.json["id"]) == (code or first[0].json["id"])
    assert (table_size("batches"), executions()) == (1, [first[0].json["id"]])


def test_an_expired_key_makes_a_new_batch(alice: Caller) -> None:
    file_id = alice.upload(input_lines(1))
    first = keyed(alice, file_id)
    [record] = Table("idempotency_keys", keys=("id",)).scan()
    Table("idempotency_keys", keys=("id",)).put({**record, "expiration": 1})
    assert keyed(alice, file_id).json["id"] != first.json["id"]


def test_a_key_in_the_body_is_used(alice: Caller) -> None:
    file_id = alice.upload(input_lines(1))
    body = {"input_file_id": file_id, "idempotency_key": "k"}
    first, again = (alice("POST", "/batches", json_body=body) for _ in range(2))
    assert (first.status, again.json["id"]) == (200, first.json["id"])
    by_header = alice("POST", "/batches", json_body={"input_file_id": file_id}, headers={"Idempotency-Key": "k"})
    assert by_header.json["id"] == first.json["id"]


# --- quotas ---------------------------------------------------------------------------------------------------------


def quota(caller: Caller, **quotas: int) -> None:
    accounts.set_quotas(caller.account_id, quotas)


def test_a_batch_over_the_quota_is_refused(alice: Caller) -> None:
    quota(alice, queued_requests=10)
    assert create(alice, input_lines(11)).error["code"] == "quota_exceeded"
    assert create(alice, input_lines(6)).status == 200
    assert create(alice, input_lines(5)).status == 429
    assert create(alice, input_lines(4)).status == 200


def test_validation_checks_the_quota_too(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    quota(alice, queued_requests=10)
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    large, small = alice.create(input_lines(11)), alice.create(input_lines(10))
    assert invoke("validate_batch", alice.start(large))["status"] == "failed"
    batch = alice.batch(large)
    assert [error["code"] for error in batch["errors"]["data"]] == ["quota_exceeded"]
    assert batch["request_counts"] == {"total": 11, "completed": 0, "failed": 0}
    assert invoke("validate_batch", alice.start(small))["status"] == "in_progress"


def test_answered_lines_are_not_queued(alice: Caller) -> None:
    quota(alice, queued_requests=10)
    first = alice.begin(input_lines(10))
    assert create(alice, input_lines(3)).status == 429
    batches.put_progress(first, 0, completed=2, failed=1)
    assert create(alice, input_lines(3)).status == 200


# --- the input file -------------------------------------------------------------------------------------------------


def test_a_batch_extends_its_inputs_expiry(alice: Caller) -> None:
    file_id = alice.upload(input_lines(1))
    Table("files").update(alice.account_id, file_id, set={"expires_at": int(time.time()) + 60})
    batch = create_of(alice, file_id)
    held = files.get(alice.account_id, file_id).expires_at
    assert held is not None
    assert held >= batch["expires_at"] + 3600


def test_a_later_expiry_of_an_input_is_kept(alice: Caller) -> None:
    file_id = alice.upload(input_lines(1))
    later = int(time.time()) + 30 * 86_400
    Table("files").update(alice.account_id, file_id, set={"expires_at": later})
    create_of(alice, file_id)
    assert files.get(alice.account_id, file_id).expires_at == later
    unlimited = alice.upload(input_lines(1))
    create_of(alice, unlimited)
    assert files.get(alice.account_id, unlimited).expires_at is None


def create_of(caller: Caller, file_id: str) -> dict[str, Any]:
    return caller("POST", "/batches", json_body={"input_file_id": file_id}).json


def test_an_input_deleted_meanwhile_is_not_found(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_route()
    file_id = alice.upload(input_lines(1))
    hold = files.hold

    def delete_and_hold(file: File, until: int) -> None:
        files.delete(alice.account_id, file_id)
        hold(file, until)

    monkeypatch.setattr(files, "hold", delete_and_hold)
    reply = alice("POST", "/batches", json_body={"input_file_id": file_id})
    assert (reply.status, reply.error["code"]) == (404, "file_not_found")
    assert table_size("batches") == 0
