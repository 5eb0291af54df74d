"""The simulator's batch API through the OpenAI SDK: files, a batch's way, and each fault."""

import json
from collections import Counter

import httpx
import openai
import pytest
from openai.types import Batch

from local.simulation import digest
from tests.integration.simulator import CHAT, Simulator, line, lines

FOREVER = 3600


@pytest.fixture(autouse=True)
def stack() -> None:
    """No AWS: the simulator needs none."""


def ids(simulator: Simulator, batch: Batch) -> list[str]:
    both = simulator.read(batch.output_file_id) + simulator.read(batch.error_file_id)
    return [each["custom_id"] for each in both]


# --- files -------------------------------------------------------------------------------------------------------


def test_a_file_is_kept_until_it_is_deleted(simulator: Simulator) -> None:
    files = simulator.client.files
    file = files.create(file=("in.jsonl", b"{}\n"), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.status) == (3, "in.jsonl", "batch", "processed")
    assert files.retrieve(file.id) == file
    assert files.content(file.id).content == b"{}\n"
    assert files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        files.retrieve(file.id)


def test_files_are_listed_newest_first(simulator: Simulator) -> None:
    files = simulator.client.files
    first, second, third = (files.create(file=("in.jsonl", b"{}"), purpose="batch").id for _ in range(3))
    page = files.list(purpose="batch", limit=2)
    assert [file.id for file in page.data] == [third, second]
    assert page.has_more
    assert files.list(after=second, limit=1).data[0].id == first


def test_a_file_over_the_limit_is_refused(simulator: Simulator) -> None:
    simulator.set(max_batch_bytes=10)
    with pytest.raises(openai.BadRequestError, match="10 at most"):
        simulator.create(lines(1))


# --- a batch's way -----------------------------------------------------------------------------------------------


def test_every_line_is_answered_in_no_order(simulator: Simulator) -> None:
    batch = simulator.run(lines(100))
    output = simulator.read(batch.output_file_id)
    numbers = [int(each["custom_id"]) for each in output]
    assert batch.status == "completed"
    assert sorted(numbers) == list(range(100)) != numbers
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 100, "completed": 100, "failed": 0}
    assert batch.error_file_id is None
    assert batch.completed_at is not None
    for each in output:
        assert each["error"] is None
        assert each["response"]["status_code"] == 200
        message = each["response"]["body"]["choices"][0]["message"]
        assert message["content"] == f"Sentence {each['custom_id']}."


def test_a_batch_has_the_answers_of_real_time(simulator: Simulator) -> None:
    batch = simulator.run([line("a", "Grüße.")])
    [answer] = simulator.read(batch.output_file_id)
    body = json.loads(line("a", "Grüße."))["body"]
    real_time = httpx.post(f"{simulator.url}/chat/completions", json=body).json()
    assert answer["response"]["body"] | {"created": 0} == real_time | {"created": 0}
    assert batch.output_file_id is not None
    assert "Grüße." in simulator.client.files.content(batch.output_file_id).text


def test_lines_draw_the_error_statuses_of_real_time(simulator: Simulator) -> None:
    simulator.set(error_rate={"400": 1})
    batch = simulator.run(lines(3))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert {each["response"]["status_code"] for each in simulator.read(batch.error_file_id)} == {400}


def test_a_batch_waits_in_validating_and_advances(simulator: Simulator) -> None:
    simulator.set(batch_start_seconds=FOREVER, batch_seconds=FOREVER)
    batch = simulator.create(lines(10), metadata={"name": "x"})
    assert (batch.status, batch.metadata, batch.in_progress_at) == ("validating", {"name": "x"}, None)
    simulator.set(batch_start_seconds=0)
    batch = simulator.until(batch, "in_progress")
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed) == (10, 0)
    simulator.set(batch_seconds=0)
    assert simulator.until(batch, "completed").finalizing_at is not None


def test_a_stuck_batch_moves_when_it_is_let_go(simulator: Simulator) -> None:
    simulator.set(batch_stuck=True)
    batch = simulator.create(lines(1))
    assert simulator.client.batches.retrieve(batch.id).status == "validating"
    simulator.set(batch_stuck=False)
    simulator.until(batch, "completed")


def test_batches_are_listed_newest_first(simulator: Simulator) -> None:
    first, second, third = (simulator.create(lines(1)).id for _ in range(3))
    page = simulator.client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == [third, second]
    assert page.has_more
    assert simulator.client.batches.list(after=second, limit=1).data[0].id == first


def test_a_batch_of_no_file_is_refused(simulator: Simulator) -> None:
    with pytest.raises(openai.BadRequestError, match="Cannot find file file-x"):
        simulator.client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")


def test_an_ended_batch_cannot_be_cancelled(simulator: Simulator) -> None:
    batch = simulator.run(lines(1))
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        simulator.client.batches.cancel(batch.id)


# --- how a batch ends otherwise ----------------------------------------------------------------------------------


def test_a_file_that_is_not_valid_fails(simulator: Simulator) -> None:
    batch = simulator.run([*lines(2), line("1"), line("2", url="/v1/embeddings")])
    assert batch.status == "failed"
    assert batch.errors is not None
    errors = [(each.code, each.line, each.param) for each in batch.errors.data or []]
    assert errors == [("duplicate_custom_id", 3, "custom_id"), ("invalid_url", 4, "url")]
    assert simulator.report()["submitted"] == {}


def test_chosen_lines_are_refused(simulator: Simulator) -> None:
    simulator.set(batch_bad_lines=["1", "3"])
    batch = simulator.run(lines(5))
    assert batch.errors is not None
    assert [each.line for each in batch.errors.data or []] == [2, 4]


def test_a_share_of_lines_is_refused_each_time(simulator: Simulator) -> None:
    simulator.set(batch_bad_lines=0.3)
    wanted = lines(100)
    batch = simulator.run(wanted)
    assert batch.errors is not None
    bad = {each.line for each in batch.errors.data or []}
    rest = [each for number, each in enumerate(wanted, start=1) if number not in bad]
    assert 0 < len(bad) < 100
    assert simulator.run(rest).status == "completed"


def test_the_next_batches_fail_with_a_code(simulator: Simulator) -> None:
    simulator.set(batch_fail={"code": "token_limit_exceeded", "times": 1})
    batch = simulator.run(lines(1))
    assert batch.errors is not None
    [error] = batch.errors.data or []
    assert (error.code, error.line) == ("token_limit_exceeded", None)
    assert (error.message or "").startswith("Enqueued token limit reached for m in organization")
    assert simulator.run(lines(1)).status == "completed"


def test_queued_tokens_are_limited_over_all_batches(simulator: Simulator) -> None:
    tokens = sum(len(each) // 4 for each in lines(10))
    simulator.set(max_queued_tokens=tokens, batch_seconds=FOREVER)
    running = simulator.until(simulator.create(lines(10)), "in_progress")
    assert simulator.run(lines(1)).status == "failed"
    simulator.set(batch_seconds=0)
    simulator.until(running, "completed")
    assert simulator.run(lines(10)).status == "completed"


def test_too_many_requests_fail(simulator: Simulator) -> None:
    simulator.set(max_batch_requests=2)
    assert simulator.run(lines(2)).status == "completed"
    assert simulator.run(lines(3)).status == "failed"


def test_an_expired_batch_has_partial_files(simulator: Simulator) -> None:
    simulator.set(batch_expire_after=0.4)
    batch = simulator.run(lines(10))
    errors = simulator.read(batch.error_file_id)
    assert (batch.status, len(simulator.read(batch.output_file_id)), len(errors)) == ("expired", 4, 6)
    assert {each["error"]["code"] for each in errors} == {"batch_expired"}
    assert sorted(ids(simulator, batch), key=int) == [str(number) for number in range(10)]


def test_a_cancelled_batch_has_partial_files(simulator: Simulator) -> None:
    simulator.set(batch_seconds=FOREVER, batch_cancel_seconds=FOREVER)
    batch = simulator.until(simulator.create(lines(10)), "in_progress")
    assert simulator.client.batches.cancel(batch.id).status == "cancelling"
    assert simulator.client.batches.cancel(batch.id).cancelling_at is not None
    simulator.set(batch_cancel_seconds=0)
    batch = simulator.until(batch, "cancelled")
    assert {each["error"]["code"] for each in simulator.read(batch.error_file_id)} == {"batch_cancelled"}
    assert len(ids(simulator, batch)) == 10
    assert simulator.report()["cancels"] == 1


def test_a_cancel_may_come_just_too_late(simulator: Simulator) -> None:
    simulator.set(batch_seconds=FOREVER, cancel_conflict=True)
    batch = simulator.create(lines(10))
    with pytest.raises(openai.ConflictError):
        simulator.client.batches.cancel(batch.id)
    batch = simulator.client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert len(simulator.read(batch.output_file_id)) == 10


# --- faults of the files -----------------------------------------------------------------------------------------


def test_lines_may_be_missing_doubled_or_unknown(simulator: Simulator) -> None:
    wanted = [str(number) for number in range(20)]
    simulator.set(batch_missing_rate=1)
    batch = simulator.run(lines(20))
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    simulator.set(batch_missing_rate=0, batch_double_rate=1)
    assert Counter(ids(simulator, simulator.run(lines(20)))) == dict.fromkeys(wanted, 2)
    simulator.set(batch_double_rate=0, batch_unknown_rate=1)
    assert len(set(ids(simulator, simulator.run(lines(20)))) - set(wanted)) == 20


def test_a_line_may_have_an_error_and_no_response(simulator: Simulator) -> None:
    simulator.set(batch_error_rate=1)
    batch = simulator.run(lines(40))
    output, errors = simulator.read(batch.output_file_id), simulator.read(batch.error_file_id)
    assert all(each["response"] is None and each["error"]["code"] == "server_error" for each in output + errors)
    assert output
    assert errors
    assert batch.request_counts is not None
    assert batch.request_counts.failed == 40


def test_files_may_come_late(simulator: Simulator) -> None:
    before = {file.id for file in simulator.client.files.list()}
    simulator.set(files_late_seconds=FOREVER)
    batch = simulator.run(lines(1))
    assert batch.output_file_id is None
    assert {file.id for file in simulator.client.files.list()} - before == {batch.input_file_id}
    simulator.set(files_late_seconds=0)
    file_id = simulator.client.batches.retrieve(batch.id).output_file_id
    assert file_id is not None
    with pytest.raises(openai.NotFoundError):
        simulator.client.files.content(file_id)


# --- calls that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_effect", [False, True])
def test_a_call_may_fail_before_or_after_its_effect(simulator: Simulator, has_effect: bool) -> None:
    file = simulator.client.files.create(file=("in.jsonl", lines(1)[0].encode()), purpose="batch")
    simulator.set(batch_api_error_rate={"500": 1}, batch_api_error_after=has_effect)
    with pytest.raises(openai.InternalServerError):
        simulator.client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    report = simulator.report()
    assert report["batches_created"] == has_effect
    assert report["batch_api"] == {"POST /v1/files 200": 1, "POST /v1/batches 500": 1}


def test_real_time_is_spared_by_faults_of_the_batch_api(simulator: Simulator) -> None:
    simulator.set(batch_api_error_rate={"429": 1}, batch_api_reset_rate=1, retry_after_s=7)
    assert httpx.post(f"{simulator.url}/chat/completions", json=json.loads(line("1"))["body"]).status_code == 200
    with pytest.raises(openai.RateLimitError) as error:
        simulator.client.batches.list()
    assert error.value.response.headers["retry-after"] == "7"


def test_a_download_may_break_off_half_way(simulator: Simulator) -> None:
    batch = simulator.run(lines(100))
    simulator.set(batch_api_reset_rate=1)
    with httpx.stream("GET", f"{simulator.url}/files/{batch.output_file_id}/content") as response:
        pieces = response.iter_bytes()
        assert next(pieces)
        with pytest.raises(httpx.TransportError):
            list(pieces)
    assert "GET /v1/files/{id}/content reset" in simulator.report()["batch_api"]


def test_batches_survive_an_outage(simulator: Simulator) -> None:
    simulator.set(batch_seconds=FOREVER)
    batch = simulator.create(lines(1))
    simulator.set(down=True)
    with pytest.raises(openai.APIConnectionError):
        simulator.client.batches.retrieve(batch.id)
    simulator.set(down=False, batch_seconds=0)
    assert simulator.until(batch, "completed").output_file_id is not None


# --- counters ----------------------------------------------------------------------------------------------------


def test_each_body_that_is_submitted_is_counted(simulator: Simulator) -> None:
    simulator.run(lines(2))
    batch = simulator.run(lines(1))
    bodies = [json.loads(each)["body"] for each in lines(2)]
    report = simulator.report()
    assert report["submitted"] == {digest(bodies[0]): 2, digest(bodies[1]): 1}
    assert report["submitted_twice_or_more"] == 1
    assert (report["batches_created"], report["files_uploaded"], report["received"]) == (2, 2, 0)
    [answer] = simulator.read(batch.output_file_id)
    assert answer["response"]["body"]["id"] == f"chatcmpl-{digest(bodies[0])}"


def test_files_held_are_counted(simulator: Simulator) -> None:
    before = simulator.report()["files_held"]
    batch = simulator.run(lines(1))
    assert simulator.report()["files_held"] == before + 2
    simulator.client.files.delete(batch.input_file_id)
    report = simulator.report()
    assert (report["files_held"], report["files_deleted"]) == (before + 1, 1)
