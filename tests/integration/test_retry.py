"""POST /v1/batches/{id}/retry: a new batch of exactly the failed lines, or a refusal without any effect."""

import json
from typing import Any

import pytest
from nightshift.accounts import store as accounts
from nightshift.batches import store as batches
from nightshift.core import bucket
from nightshift.files import store as files

from tests.integration.support import (
    Caller,
    Exchange,
    Reply,
    Server,
    apply_route,
    input_lines,
    invoke,
    move,
    put_batch,
    request_line,
    set_batch,
    table_size,
)


def fail_some(exchange: Exchange) -> None:
    """Refuse the requests whose text has ``bad``."""
    if b"bad" in exchange.received.body:
        exchange.reply(400, b'{"error":{"message":"no"}}')
    else:
        exchange.complete()


def mixed_lines(count: int) -> list[str]:
    """Every third one fails."""
    return [request_line(f"r{number}", "bad" if number % 3 == 0 else "good") for number in range(count)]


def ended(caller: Caller, lines: list[str] | bytes, **body: Any) -> dict[str, Any]:
    batch_id = caller.begin(lines, **body)
    caller.run_chunks(batch_id)
    return caller.finalize(batch_id)


def retry(caller: Caller, batch_id: str, **event: Any) -> Reply:
    return caller("POST", f"/batches/{batch_id}/retry", **event)


def input_of(caller: Caller, batch: dict[str, Any]) -> list[str]:
    file = files.get(caller.account_id, batch["input_file_id"])
    return files.read_range(caller.account_id, file.id, 0, file.size).decode().removesuffix("\n").split("\n")


@pytest.fixture
def failed(alice: Caller, upstream: Server) -> dict[str, Any]:
    """A batch of nine lines, three of which failed."""
    upstream.behave = fail_some
    return ended(alice, mixed_lines(9), metadata={"team": "search"}, callback_url="https://hooks.example.com/x")


def test_the_failed_lines_become_a_batch(alice: Caller, failed: dict[str, Any], upstream: Server) -> None:
    reply = retry(alice, failed["id"])
    assert reply.status == 200
    batch = reply.json
    assert (batch["status"], batch["retry_of"]) == ("validating", failed["id"])
    assert batch["metadata"] == {"team": "search", "retry_of": failed["id"]}
    assert (batch["callback_url"], batch["endpoint"]) == (failed["callback_url"], failed["endpoint"])
    assert input_of(alice, batch) == [mixed_lines(9)[number] for number in (0, 3, 6)]
    upstream.behave = Exchange.complete
    batch_id = batch["id"]
    assert alice.batch(batch_id)["status"] == "in_progress"
    invoke("validate_batch", alice.start(batch_id))
    alice.run_chunks(batch_id)
    again = alice.finalize(batch_id)
    assert [line["custom_id"] for line in alice.lines(again["output_file_id"])] == ["r0", "r3", "r6"]
    assert retry(alice, batch_id).error["code"] == "nothing_to_retry"


def test_lines_without_an_answer_are_retried(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(5))
    move(alice, batch_id, "cancelling")
    cancelled = alice.finalize(batch_id)
    assert (cancelled["status"], cancelled["request_counts"]["failed"]) == ("cancelled", 5)
    assert input_of(alice, retry(alice, batch_id).json) == input_lines(5)


def test_expired_lines_are_retried(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, expires_at=1)
    assert alice.finalize(batch_id)["status"] == "expired"
    assert input_of(alice, retry(alice, batch_id).json) == input_lines(2)


def test_a_failed_retry_is_retried(alice: Caller, failed: dict[str, Any], upstream: Server) -> None:
    first = retry(alice, failed["id"]).json
    alice.run_chunks(first["id"])
    alice.finalize(first["id"])
    second = retry(alice, first["id"]).json
    assert (second["retry_of"], second["metadata"]["retry_of"]) == (first["id"], first["id"])
    assert input_of(alice, second) == input_of(alice, first)


def test_odd_lines_are_sent_again_as_they_are(alice: Caller, upstream: Server) -> None:
    """Bytes of any kind, and no newline or blank lines at the end."""
    upstream.behave = fail_some
    odd = [
        json.dumps(json.loads(request_line("\u2028\x85 é", "bad")), ensure_ascii=False),
        request_line("x" * 300, "bad").replace("bad", "bad \\ud83d").replace("x" * 300, "x" * 300 + "\\ud83d"),
        request_line("good"),
        '{"body":{"messages":[{"content":"bad","role":"user"}],"model":"demo-model"},"method":"POST",  "url":'
        '"/v1/chat/completions","custom_id":"\\u0061"}',
    ]
    batch = ended(alice, ("\n".join(odd) + "\n\n\n").encode())
    assert input_of(alice, retry(alice, batch["id"]).json) == [odd[0], odd[1], odd[3]]
    batch = ended(alice, "\n".join(odd).encode())
    assert input_of(alice, retry(alice, batch["id"]).json) == [odd[0], odd[1], odd[3]]


def test_metadata_that_is_full_stays_as_it_is(alice: Caller, upstream: Server) -> None:
    upstream.behave = fail_some
    full = {str(number): "x" for number in range(16)}
    batch = ended(alice, mixed_lines(1), metadata=full)
    retried = retry(alice, batch["id"]).json
    assert (retried["metadata"], retried["retry_of"]) == (full, batch["id"])


def test_a_retry_locks_a_route_anew(alice: Caller, failed: dict[str, Any]) -> None:
    apply_route(upstream_model="newer")
    retried = batches.get(alice.account_id, retry(alice, failed["id"]).json["id"])
    assert retried.plan is not None
    assert retried.plan.route.upstream_model == "newer"


def test_a_retry_is_checked_later_where_the_call_may_not(
    alice: Caller, failed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    batch_id = retry(alice, failed["id"]).json["id"]
    assert batches.get(alice.account_id, batch_id).plan is None
    assert invoke("validate_batch", alice.start(batch_id))["status"] == "in_progress"


# --- idempotency ----------------------------------------------------------------------------------------------------


def test_the_same_key_makes_one_retry(alice: Caller, failed: dict[str, Any]) -> None:
    size = table_size("files")
    headers = {"Idempotency-Key": "k"}
    first = retry(alice, failed["id"], headers=headers).json
    second = retry(alice, failed["id"], json_body={"idempotency_key": "k"}).json
    assert (first["id"], first["input_file_id"]) == (second["id"], second["input_file_id"])
    assert table_size("files") == size + 1
    assert retry(alice, failed["id"]).json["id"] != first["id"]


def test_a_key_of_another_call_is_refused(alice: Caller, failed: dict[str, Any], upstream: Server) -> None:
    headers = {"Idempotency-Key": "k"}
    alice("POST", "/batches", json_body={"input_file_id": alice.upload(input_lines(1))}, headers=headers)
    assert retry(alice, failed["id"], headers=headers).error["code"] == "idempotency_key_reused"


# --- refusals -------------------------------------------------------------------------------------------------------


def refused(caller: Caller, batch_id: str) -> tuple[int, str | None]:
    """The status and the code of a refusal that left nothing behind."""
    before = table_size("batches"), table_size("files")
    reply = retry(caller, batch_id)
    assert (table_size("batches"), table_size("files")) == before
    return reply.status, reply.error["code"]


def test_a_batch_that_has_not_ended_is_refused(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(1))
    assert refused(alice, batch_id) == (409, "batch_not_ended")


def test_nothing_failed(alice: Caller, upstream: Server) -> None:
    assert refused(alice, ended(alice, input_lines(2))["id"]) == (400, "nothing_to_retry")


def test_a_file_that_was_refused_has_no_failed_lines(alice: Caller) -> None:
    put_batch(alice, "batch_f")
    move(alice, "batch_f", "failed")
    assert refused(alice, "batch_f") == (400, "nothing_to_retry")


@pytest.mark.parametrize("kind", ["input", "error"])
def test_a_deleted_file_is_refused(alice: Caller, failed: dict[str, Any], kind: str) -> None:
    assert alice("DELETE", f"/files/{failed[f'{kind}_file_id']}").status == 200
    assert refused(alice, failed["id"]) == (409, f"{kind}_file_gone")


@pytest.mark.parametrize("kind", ["input", "error"])
def test_a_file_without_its_bytes_is_refused(alice: Caller, failed: dict[str, Any], kind: str) -> None:
    file_id = failed[f"{kind}_file_id"]
    bucket.delete(files.key(alice.account_id, file_id))
    assert refused(alice, failed["id"]) == (409, f"{kind}_file_gone")


def test_the_input_deleted_while_the_batch_ran(alice: Caller, upstream: Server) -> None:
    batch_id = alice.begin(input_lines(2))
    files.delete(alice.account_id, batches.get(alice.account_id, batch_id).input_file_id)
    move(alice, batch_id, "cancelling")
    alice.finalize(batch_id)
    assert refused(alice, batch_id) == (409, "input_file_gone")


def test_another_accounts_batch_does_not_exist(bob: Caller, failed: dict[str, Any]) -> None:
    assert refused(bob, failed["id"]) == (404, "batch_not_found")
    assert refused(bob, "batch_nope") == (404, "batch_not_found")


def test_quotas_apply(alice: Caller, failed: dict[str, Any]) -> None:
    accounts.set_quotas(alice.account_id, {"queued_requests": 2})
    assert refused(alice, failed["id"]) == (429, "quota_exceeded")


def test_a_model_without_a_route_is_refused(alice: Caller, failed: dict[str, Any]) -> None:
    apply_route(endpoints=("/v1/embeddings",))
    assert refused(alice, failed["id"]) == (400, "batch_model_not_supported")


@pytest.mark.parametrize("body", [{"metadata": {}}, {"idempotency_key": ""}, {"idempotency_key": 7}])
def test_a_wrong_body_is_refused(alice: Caller, failed: dict[str, Any], body: dict[str, Any]) -> None:
    assert retry(alice, failed["id"], json_body=body).status == 400


def test_only_post_is_there(alice: Caller, failed: dict[str, Any]) -> None:
    reply = alice("GET", f"/batches/{failed['id']}/retry")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert json.loads(reply.body)["error"]["code"] == "method_not_allowed"
