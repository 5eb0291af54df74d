"""finalize_batch: every input line is in exactly one file, in order, at every kind of end."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from nightshift.batches import store as batches
from nightshift.core import aws, concat, settings
from nightshift.engine import settlement
from nightshift.files import store as files
from nightshift.input import layout, plan
from nightshift.results import store as results
from nightshift.results.completion import usage_of
from nightshift.results.line import OutputLine, answered_line, failed_line
from nightshift.results.usage import Usage

from tests.integration.support import Caller, Server, input_lines, invoke, object_keys, set_batch, table_size


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch, upstream: Server) -> None:
    """Segments of two lines, so that five lines are three segments."""
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)


def answered(batch_id: str, line: int, status: int = 200) -> OutputLine:
    body = json.dumps({"line": line}).encode()
    return answered_line(batch_id, line, f"r{line}", status, "req_1", body, Usage(1, 0, 2, 0, 3))


def seal(batch_id: str, *segments: int) -> None:
    """Seal these segments of the batch with answers; even lines with 200, odd ones with 400."""
    spans = [span for task in plan.read(batch_id) or [] for span in task.segments]
    for index in segments:
        span = spans[index]
        numbers = range(span.first_line, span.first_line + span.lines)
        results.write_seal(batch_id, span, [answered(batch_id, n, 400 if n % 2 else 200) for n in numbers])


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]


def test_sealed_lines_become_both_files_in_order(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 2, 0, 1)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert ids(alice.lines(batch["output_file_id"])) == ["r0", "r2", "r4"]
    assert ids(alice.lines(batch["error_file_id"])) == ["r1", "r3"]
    assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    assert batch["usage"]["total_tokens"] == 15
    assert batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"] <= time.time()
    assert [batch[f"{end}_at"] for end in ("failed", "expired", "cancelled")] == [None] * 3


def test_long_segments_come_out_in_order(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SEAL_BYTES", 100)
    batch_id = alice.begin(input_lines(5))
    results.write_result_part(batch_id, 0, [answered(batch_id, n, 400 if n == 1 else 200) for n in (4, 1, 0)])
    alice("POST", f"/batches/{batch_id}/cancel")
    batch = alice.finalize(batch_id)
    assert ids(alice.lines(batch["output_file_id"])) == ["r0", "r4"]
    assert ids(alice.lines(batch["error_file_id"])) == ["r1", "r2", "r3"]
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}
    assert batch["usage"]["total_tokens"] == 9


def test_the_end_is_told_with_who_pays(alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """The dashboard's tables of accounts and of slow batches, and the rule SpendByAccount, are made of this line."""
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 0, 1, 2)
    alice.finalize(batch_id)
    (told,) = [vars(record) for record in caplog.records if record.getMessage() == "batch ended"]
    assert told | {"batch_id": batch_id, "account_id": alice.account_id, "route": "demo/demo-model"} == told
    assert (told["lines"], told["failed"]) == (5, 2)
    assert (told["input_tokens"], told["output_tokens"], told["dollars"]) == (5, 10, None)
    assert told["seconds"] >= 0


def test_a_file_without_lines_is_not_made(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    seal(batch_id, 0)
    batch = alice.finalize(batch_id)
    assert batch["output_file_id"]
    assert batch["error_file_id"] is None
    assert table_size("files") == 2


def test_a_batch_of_failed_lines_is_completed(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    [task] = plan.read(batch_id) or []
    results.write_seal(batch_id, task.segments[0], [answered(batch_id, 0, 500)])
    batch = alice.finalize(batch_id)
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 1, "completed": 0, "failed": 1}


def test_output_files_have_purpose_and_expiry(alice: Caller) -> None:
    for asked, seconds in ((None, 30 * 24 * 3600), ({"anchor": "created_at", "seconds": 3600}, 3600)):
        batch_id = alice.begin(input_lines(1), output_expires_after=asked)
        seal(batch_id, 0)
        file = alice("GET", f"/files/{alice.finalize(batch_id)['output_file_id']}").json
        assert file["purpose"] == "batch_output"
        assert file["expires_at"] - file["created_at"] == seconds
        assert file["bytes"] == len(file_bytes(alice, file["id"]))


def file_bytes(caller: Caller, file_id: str) -> bytes:
    found = aws.client("s3").get_object(Bucket=settings.bucket(), Key=files.key(caller.account_id, file_id))
    return found["Body"].read()


def test_a_lost_chunks_lines_are_internal_errors(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 0)
    results.write_result_part(batch_id, 0, [answered(batch_id, 4)])
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert ids(alice.lines(batch["output_file_id"])) == ["r0", "r4"]
    errors = alice.lines(batch["error_file_id"])
    assert [(line["custom_id"], line["error"] and line["error"]["code"]) for line in errors] == [
        ("r1", None),
        ("r2", "internal_error"),
        ("r3", "internal_error"),
    ]
    assert batch["request_counts"] == {"total": 5, "completed": 2, "failed": 3}


def test_an_overdue_batch_keeps_its_answers(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    results.write_result_part(batch_id, 0, [answered(batch_id, 2)])
    set_batch(alice, batch_id, expires_at=1)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "expired"
    assert batch["expired_at"]
    assert batch["finalizing_at"] is None
    assert ids(alice.lines(batch["output_file_id"])) == ["r2"]
    assert {line["error"]["code"] for line in alice.lines(batch["error_file_id"])} == {"batch_expired"}
    assert ids(alice.lines(batch["error_file_id"])) == ["r0", "r1", "r3", "r4"]


def test_a_batch_done_in_time_is_completed_late(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 0, 1, 2)
    set_batch(alice, batch_id, expires_at=1)
    assert alice.finalize(batch_id)["status"] == "completed"


def test_a_cancelled_batch_keeps_its_answers(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 1)
    alice("POST", f"/batches/{batch_id}/cancel")
    batch = alice.finalize(batch_id)
    assert (batch["status"], batch["expired_at"], batch["completed_at"]) == ("cancelled", None, None)
    assert batch["cancelling_at"] <= batch["cancelled_at"]
    assert ids(alice.lines(batch["output_file_id"])) == ["r2"]
    errors = alice.lines(batch["error_file_id"])
    assert ids(errors) == ["r0", "r1", "r3", "r4"]
    assert [line["error"] and line["error"]["code"] for line in errors] == [
        "batch_cancelled",
        "batch_cancelled",
        None,
        "batch_cancelled",
    ]


def test_a_cancel_before_validation_has_no_lines(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    batch_id = alice.create(input_lines(5))
    alice("POST", f"/batches/{batch_id}/cancel")
    batch = alice.finalize(batch_id)
    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)


def test_a_cancel_before_any_chunk_has_all_lines(alice: Caller) -> None:
    batch_id = alice.create(input_lines(5))
    alice("POST", f"/batches/{batch_id}/cancel")
    batch = alice.finalize(batch_id)
    assert batch["request_counts"] == {"total": 5, "completed": 0, "failed": 5}
    assert ids(alice.lines(batch["error_file_id"])) == ["r0", "r1", "r2", "r3", "r4"]


def test_a_cancel_during_the_join_is_cancelled(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 0, 1, 2)
    resume = concat.resume

    def cancel_then_resume(*arguments: Any, **named: Any) -> int:
        alice("POST", f"/batches/{batch_id}/cancel")
        return resume(*arguments, **named)

    monkeypatch.setattr(concat, "resume", cancel_then_resume)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    assert ids(alice.lines(batch["output_file_id"])) == ["r0", "r2", "r4"]


def test_a_deleted_part_loses_only_its_own_lines(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SEAL_BYTES", 0)
    monkeypatch.setattr(layout, "SEGMENT_LINES", 1_000)
    batch_id = alice.begin(input_lines(4))
    [task] = plan.read(batch_id) or []
    lost = results.write_result_part(batch_id, 0, [answered(batch_id, 1), answered(batch_id, 2)])
    results.write_result_part(batch_id, 0, [answered(batch_id, 0), answered(batch_id, 3, 400)])
    assert results.seal_from_parts(batch_id, 0, task.segments[0]).by_reference
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=lost)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert ids(alice.lines(batch["output_file_id"])) == ["r0"]
    left = [
        (line["custom_id"], line["error"] and line["error"]["code"]) for line in alice.lines(batch["error_file_id"])
    ]
    assert left == [("r1", "internal_error"), ("r2", "internal_error"), ("r3", None)]
    assert batch["request_counts"] == {"total": 4, "completed": 1, "failed": 3}
    assert batch["errors"]


def test_a_deleted_output_file_stays_deleted(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin(input_lines(1))
    seal(batch_id, 0)
    resume = concat.resume

    def end_and_delete_then_resume(*arguments: Any, **named: Any) -> int:
        monkeypatch.setattr(concat, "resume", resume)
        ended = alice.finalize(batch_id)
        assert alice("DELETE", f"/files/{ended['output_file_id']}").status == 200
        return resume(*arguments, **named)

    monkeypatch.setattr(concat, "resume", end_and_delete_then_resume)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert alice("GET", f"/files/{batch['output_file_id']}").status == 404
    key = files.key(alice.account_id, batch["output_file_id"])
    assert key not in object_keys("files/")


def test_a_seal_of_a_worker_meanwhile_is_used(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin(input_lines(2))
    custom_ids = settlement._custom_ids

    def seal_meanwhile(*arguments: Any) -> Any:
        seal(batch_id, 0)
        return custom_ids(*arguments)

    monkeypatch.setattr(settlement, "_custom_ids", seal_meanwhile)
    batch = alice.finalize(batch_id)
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert ids(alice.lines(batch["output_file_id"])) == ["r0"]
    assert [line["response"]["status_code"] for line in alice.lines(batch["error_file_id"])] == [400]


def test_a_stop_just_before_the_deadline_expires(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    set_batch(alice, batch_id, expires_at=int(time.time()) + 2)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "expired"
    assert alice.lines(batch["error_file_id"])[0]["error"]["code"] == "batch_expired"


def test_finalizing_twice_changes_nothing(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 0, 1)
    first = alice.finalize(batch_id)
    kept = {key: aws.client("s3").head_object(Bucket=settings.bucket(), Key=key)["ETag"] for key in object_keys()}
    assert alice.finalize(batch_id) == first
    assert {
        key: aws.client("s3").head_object(Bucket=settings.bucket(), Key=key)["ETag"] for key in object_keys()
    } == kept


def test_two_finalizers_end_a_batch_once(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 1)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(invoke, "finalize_batch", alice.round(batch_id, "done")) for _ in range(2)]
    assert [run.result()["status"] for run in runs] == ["completed", "completed"]
    batch = alice.batch(batch_id)
    assert batch["request_counts"] == {"total": 5, "completed": 1, "failed": 4}
    assert ids(alice.lines(batch["error_file_id"])) == ["r0", "r1", "r3", "r4"]
    assert table_size("files") == 3


@pytest.mark.parametrize("lost", ["files.record", "batches.transition", "concat.resume"])
def test_the_next_run_repairs_a_crash(alice: Caller, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    batch_id = alice.begin(input_lines(5))
    seal(batch_id, 0)
    module, _, name = lost.partition(".")
    target = {"files": files, "batches": batches, "concat": concat}[module]

    def crash(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(target, name, crash)
        with pytest.raises(MemoryError):
            invoke("finalize_batch", alice.round(batch_id, "done"))
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 5, "completed": 1, "failed": 4}
    assert table_size("files") == 3


def test_a_deleted_input_loses_custom_ids(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(3))
    seal(batch_id, 0)
    input_id = batches.get(alice.account_id, batch_id).input_file_id
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=files.key(alice.account_id, input_id))
    batch = alice.finalize(batch_id)
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    assert ids(alice.lines(batch["error_file_id"])) == ["r1", None]


def test_lines_doubled_in_parts_are_counted_once(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    for _ in range(2):
        results.write_result_part(
            batch_id, 0, [answered(batch_id, 1), failed_line(batch_id, 0, "r0", "request_timeout", "-")]
        )
    batch = alice.finalize(batch_id)
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert batch["usage"]["total_tokens"] == 3


def test_an_impossible_usage_blocks_no_end(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    [task] = plan.read(batch_id) or []
    body = b'{"usage":{"prompt_tokens":%d}}' % (10**40 + 1)
    line = answered_line(batch_id, 0, "r0", 200, "req_1", body, usage_of(body))
    results.write_seal(batch_id, task.segments[0], [line])
    assert alice.finalize(batch_id)["status"] == "completed"
