"""While lines are unfinished and time is left, a batch goes on: rounds, executions that follow, parking and waking."""

import json
import time
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from nightshift.batches import executions
from nightshift.batches import store as batches
from nightshift.chunks.chunk import Carry
from nightshift.core import aws, settings
from nightshift.engine import history
from nightshift.input import layout
from nightshift.routes.health import Health, trouble_of
from nightshift.routes.state import RouteState

from tests.integration.support import (
    Caller,
    KilledError,
    Server,
    apply_route,
    input_lines,
    invoke,
    move,
    route,
    run_chunk,
    sample,
    set_batch,
)


@pytest.fixture(autouse=True)
def a_route(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("upstream")


def started(batch_id: str) -> dict[str, str]:
    """The batch's executions by name, with their statuses."""
    found = aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())["executions"]
    return {each["name"]: each["status"] for each in found if each["name"].startswith(batch_id)}


def input_of(name: str) -> dict[str, Any]:
    arn = f"{settings.state_machine().replace(':stateMachine:', ':execution:')}:{name}"
    given: dict[str, Any] = json.loads(aws.client("stepfunctions").describe_execution(executionArn=arn)["input"])
    return given


# --- after a round --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["failed", "lost"])
def test_a_failed_chunk_gets_another_round(alice: Caller, broken: str) -> None:
    batch_id = alice.begin(input_lines(3))
    ended = alice.round(batch_id, *(["failed"] if broken == "failed" else []))
    waited = []
    for failures in range(8):
        answer = invoke("finalize_batch", ended | {"failures": failures})
        assert (answer["goes_on"], answer["status"]) == (True, "in_progress")
        assert answer["failures"] == failures + 1
        waited.append(answer["wait_seconds"])
    assert 10 <= waited[0] <= 20
    assert 300 <= waited[7] <= 600
    assert invoke("validate_batch", answer)["run"] == "chunk"


def test_a_parked_chunk_says_when_it_goes_on(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(3))
    answer = invoke("finalize_batch", alice.round(batch_id, "park", wait_seconds=200) | {"failures": 3})
    assert (answer["goes_on"], answer["wait_seconds"], answer["failures"]) == (True, 200, 0)
    parked_until = batches.get(alice.account_id, batch_id).parked_until
    assert parked_until is not None
    assert abs(parked_until - time.time() - 200) < 100


def test_no_pause_outlasts_the_deadline(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(3))
    set_batch(alice, batch_id, expires_at=int(time.time()) + 50)
    answer = invoke("finalize_batch", alice.round(batch_id, "park", wait_seconds=900))
    assert answer["goes_on"]
    assert answer["wait_seconds"] <= 50


@pytest.mark.parametrize("state", ["failed", "park"])
def test_the_deadline_ends_the_rounds(alice: Caller, state: str) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, expires_at=int(time.time()))
    answer = invoke("finalize_batch", alice.round(batch_id, state))
    assert (answer["goes_on"], answer["status"]) == (False, "expired")
    batch = alice.batch(batch_id)
    assert {line["error"]["code"] for line in alice.lines(batch["error_file_id"])} == {"batch_expired"}
    assert batch["errors"] is None


def test_a_failed_chunk_that_was_done_ends(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    alice.run_chunks(batch_id)
    assert invoke("finalize_batch", alice.round(batch_id, "failed"))["status"] == "completed"
    assert alice.batch(batch_id)["errors"] is None


def test_a_full_history_is_handed_over(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    ended = alice.round(batch_id) | {"only_chunk": {"state": "park", "wait_seconds": 0, "events": history.MAX_EVENTS}}
    assert not invoke("finalize_batch", ended)["goes_on"]
    assert set(started(batch_id)) == {batch_id, f"{batch_id}-1"}
    assert input_of(f"{batch_id}-1") == alice.start(batch_id) | {"execution": 1, "wait_seconds": 1}
    assert not invoke("finalize_batch", ended)["goes_on"]
    assert len(started(batch_id)) == 2


def test_an_older_execution_ends_nothing(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, execution=1)
    answer = invoke("finalize_batch", alice.round(batch_id, "done"))
    assert (answer["goes_on"], answer["status"]) == (False, "in_progress")


@pytest.mark.parametrize(("asked", "waited"), [(10, 10), (300, 20)])
def test_a_cancelled_batch_collects_for_a_while(alice: Caller, asked: int, waited: int) -> None:
    """A long pause was asked for before the cancel, and nothing would wake the batch from it."""
    apply_route(mode="batch")
    batch_id = alice.create(input_lines(2))
    alice("POST", f"/batches/{batch_id}/cancel")
    assert invoke("validate_batch", alice.start(batch_id))["run"] == "chunk"
    collecting = alice.round(batch_id, "park", wait_seconds=asked)
    answer = invoke("finalize_batch", collecting)
    assert (answer["goes_on"], answer["wait_seconds"], answer["status"]) == (True, waited, "cancelling")
    set_batch(alice, batch_id, cancelling_at=int(time.time()) - 900)
    assert invoke("finalize_batch", collecting)["status"] == "cancelled"


def test_several_chunks_need_the_map(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "WORKER_CONCURRENCY", 2)
    monkeypatch.setattr(layout, "ROUNDS_PER_WORKER", 1)
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)
    apply_route(max_concurrency=4)
    batch_id = alice.begin(input_lines(9))
    assert invoke("validate_batch", alice.start(batch_id))["run"] == "chunks"
    assert invoke("finalize_batch", alice.round(batch_id, "done"))["goes_on"]


# --- what the create call has validated -----------------------------------------------------------------------------


def create_killed_after_the_start(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> str:
    """A batch whose execution has started, but whose create call did not live to put it in progress."""

    def killed(*_: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(batches, "transition", killed)
        return caller.create(input_lines(3))


def test_the_create_call_begins_a_batch_of_one_chunk(alice: Caller) -> None:
    batch_id = alice.create(input_lines(3))
    assert alice.batch(batch_id)["status"] == "in_progress"
    assert input_of(batch_id)["run"] == "chunk"


def test_its_worker_begins_a_validated_batch(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = create_killed_after_the_start(alice, monkeypatch)
    assert alice.batch(batch_id)["status"] == "validating"
    task = input_of(batch_id)["task"]
    done = run_chunk(task)
    assert (done["state"], alice.batch(batch_id)["status"]) == ("done", "in_progress")
    assert invoke("finalize_batch", alice.round(batch_id, only_chunk=done))["status"] == "completed"
    assert alice.batch(batch_id)["request_counts"] == {"total": 3, "completed": 3, "failed": 0}


@pytest.mark.parametrize(("ended", "status"), [("cancelled", "cancelled"), ("expired", "failed")])
def test_its_worker_begins_no_batch_that_is_to_end(
    alice: Caller, upstream: Server, monkeypatch: pytest.MonkeyPatch, ended: str, status: str
) -> None:
    batch_id = create_killed_after_the_start(alice, monkeypatch)
    if ended == "cancelled":
        alice("POST", f"/batches/{batch_id}/cancel")
    else:
        set_batch(alice, batch_id, expires_at=int(time.time()))
    done = run_chunk(input_of(batch_id)["task"])
    assert (done["state"], upstream.received) == ("done", [])
    assert invoke("finalize_batch", alice.round(batch_id, only_chunk=done))["status"] == status


def test_a_provider_begins_a_batch_of_its_own(alice: Caller) -> None:
    apply_route(mode="batch")
    batch_id = alice.create(input_lines(3))
    run_chunk(input_of(batch_id)["task"])
    assert alice.batch(batch_id)["status"] == "validating"


# --- after an execution ---------------------------------------------------------------------------------------------


def abandoned(caller: Caller, batch_id: str, status: str, number: int = 0) -> dict[str, Any]:
    event = sample("close_abandoned")
    name = f"{batch_id}-{number}" if number else batch_id
    task = caller.start(batch_id) | {"execution": number}
    event["detail"] |= {"input": json.dumps(task), "name": name, "status": status}
    return event


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT"])
@pytest.mark.parametrize("validated", [True, False])
def test_a_failed_execution_is_followed_once(alice: Caller, status: str, validated: bool) -> None:
    batch_id = alice.begin(input_lines(2)) if validated else alice.create(input_lines(2))
    before = alice.batch(batch_id)["status"]
    for _ in range(2):
        assert invoke("close_abandoned", abandoned(alice, batch_id, status)) == {"status": before}
    assert set(started(batch_id)) == {batch_id, f"{batch_id}-1"}
    assert 10 <= input_of(f"{batch_id}-1")["wait_seconds"] <= 20
    for number in range(1, 8):
        invoke("close_abandoned", abandoned(alice, batch_id, status, number))
    assert 300 <= input_of(f"{batch_id}-8")["wait_seconds"] <= 600
    assert batches.get(alice.account_id, batch_id).parked_until


def test_a_failed_execution_past_the_deadline_ends(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = alice.begin(input_lines(2))
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "0")
    waiting = alice.create(input_lines(2))
    for batch_id in (begun, waiting):
        set_batch(alice, batch_id, expires_at=int(time.time()))
    assert invoke("close_abandoned", abandoned(alice, begun, "FAILED")) == {"status": "expired"}
    assert invoke("close_abandoned", abandoned(alice, waiting, "FAILED")) == {"status": "failed"}
    [error] = alice.batch(waiting)["errors"]["data"]
    assert error["message"] == "The batch could not be validated before its deadline."


def counted(capsys: pytest.CaptureFixture[str], metric: str) -> float:
    """The sum of the metric since the last call, in the lines that CloudWatch reads."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    return sum(sum(line.get(metric, [])) for line in lines)


@pytest.mark.parametrize(("validated", "end"), [(True, "completed"), (False, "failed")])
def test_an_operators_stop_ends_the_batch_and_raises_an_alarm(
    alice: Caller,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    validated: bool,
    end: str,
) -> None:
    monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "20" if validated else "0")
    batch_id = alice.begin(input_lines(2)) if validated else alice.create(input_lines(2))
    stopped = abandoned(alice, batch_id, "ABORTED")
    assert invoke("close_abandoned", stopped) == {"status": end}
    [error] = alice.batch(batch_id)["errors"]["data"]
    assert error["message"].startswith("The batch was stopped by its operator.")
    assert counted(capsys, "BatchesWithErrors") == 1
    assert invoke("close_abandoned", stopped) == {"status": end}
    assert counted(capsys, "BatchesWithErrors") == 0


def test_a_stop_of_an_older_execution_is_ignored(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, execution=2)
    assert invoke("close_abandoned", abandoned(alice, batch_id, "ABORTED", 1)) == {"status": "in_progress"}
    assert invoke("close_abandoned", abandoned(alice, batch_id, "ABORTED", 2)) == {"status": "completed"}


def test_an_ended_batch_is_not_followed(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    alice.run_chunks(batch_id)
    ended = alice.finalize(batch_id)
    assert invoke("close_abandoned", abandoned(alice, batch_id, "FAILED")) == {"status": "completed"}
    assert alice.batch(batch_id) == ended
    assert set(started(batch_id)) == {batch_id}


def test_a_chunks_execution_ends_no_batch(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    event = abandoned(alice, batch_id, "FAILED")
    event["detail"] |= {"name": "5c7e0b1e-8f0f-3d6e-9a53-2f4c7b1d9e60", "input": None}
    assert invoke("close_abandoned", event) == {"status": None}
    assert alice.batch(batch_id)["status"] == "in_progress"


# --- parking and waking ---------------------------------------------------------------------------------------------


def parked(caller: Caller) -> str:
    """A batch whose only chunk waits for its route, which the operator has paused."""
    apply_route()
    batch_id = caller.begin(input_lines(2))
    RouteState(route().id).put_control("paused")
    task = invoke("validate_batch", caller.start(batch_id))["task"]
    assert run_chunk(task)["state"] == "park"
    return batch_id


def test_a_cancel_wakes_a_parked_batch(alice: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    batch_id = parked(alice)
    assert alice("POST", f"/batches/{batch_id}/cancel").json["status"] == "cancelling"
    assert started(batch_id) == {batch_id: "ABORTED", f"{batch_id}-1": "RUNNING"}
    assert input_of(f"{batch_id}-1")["wait_seconds"] == 0
    assert batches.get(alice.account_id, batch_id).parked_until is None
    assert invoke("close_abandoned", abandoned(alice, batch_id, "ABORTED")) == {"status": "cancelling"}
    assert invoke("validate_batch", input_of(f"{batch_id}-1"))["run"] == "nothing"
    ended = invoke("finalize_batch", alice.round(batch_id, execution=1))
    assert ended["status"] == "cancelled"
    assert counted(capsys, "BatchesWithErrors") == 0


def in_chunks(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> str:
    """A batch of three chunks of two lines."""
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)
    monkeypatch.setattr(layout, "WORKER_CONCURRENCY", 2)
    monkeypatch.setattr(layout, "ROUNDS_PER_WORKER", 1)
    return caller.begin(input_lines(6))


def test_one_chunk_looks_in_place_of_all_that_wait(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = in_chunks(alice, monkeypatch)
    RouteState(route().id).put_control("paused")
    first = invoke("validate_batch", alice.start(batch_id))
    assert (first["run"], first["scout"]) == ("chunks", False)
    assert {end["state"] for end in alice.run_chunks(batch_id)} == {"park"}

    ended = alice.round(batch_id, "park", "park", "park", wait_seconds=300)
    following = invoke("finalize_batch", ended)
    again = invoke("validate_batch", following)
    assert (again["run"], again["scout"]) == ("chunk", True)
    parked = run_chunk(again["task"])
    assert parked["state"] == "park"
    assert parked["wait_seconds"] > 20

    RouteState(route().id).put_control("open")
    set_batch(alice, batch_id, parked_until=int(time.time()) - 1)
    came_back = run_chunk(again["task"] | {"slice": parked})
    assert (came_back["state"], came_back["wait_seconds"]) == ("park", 0)
    following = invoke("finalize_batch", alice.round(batch_id, scout=True, only_chunk=came_back))
    assert (following["goes_on"], following["wait_seconds"], following["failures"]) == (True, 1, 0)
    assert invoke("validate_batch", following)["run"] == "chunks"


def test_a_scout_probes_a_broken_route_and_comes_back(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = in_chunks(alice, monkeypatch)
    state = RouteState(route().id)
    trouble = trouble_of(401, "Incorrect API key provided.")
    state.put_health(Health(trouble=trouble, confirmed=True, seen_at=time.time() - 60, revision=1))
    following = invoke("finalize_batch", alice.round(batch_id, "park", "park", "park", wait_seconds=300))
    scout = invoke("validate_batch", following)["task"]

    probed = run_chunk(scout)
    assert state.read().health.trouble is None
    assert probed["wait_seconds"] <= 20  # it has done a line or two
    following = invoke("finalize_batch", alice.round(batch_id, scout=True, only_chunk=probed))
    assert (following["goes_on"], following["failures"]) == (True, 0)
    assert {end["state"] for end in alice.run_chunks(batch_id)} == {"done"}
    assert alice.finalize(batch_id)["request_counts"] == {"total": 6, "completed": 6, "failed": 0}


def test_failed_chunks_are_all_tried_again(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = in_chunks(alice, monkeypatch)
    following = invoke("finalize_batch", alice.round(batch_id, "failed", "done", "done") | {"failures": 5})
    assert invoke("validate_batch", following)["run"] == "chunks"


def test_a_cancel_of_a_working_batch_wakes_none(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, parked_until=int(time.time()) - 1)
    alice("POST", f"/batches/{batch_id}/cancel")
    assert started(batch_id) == {batch_id: "RUNNING"}


def test_a_cancelled_batch_is_not_parked(alice: Caller) -> None:
    apply_route(api_key_secret="nightshift/gone")
    batch_id = alice.begin(input_lines(2))
    batch = batches.get(alice.account_id, batch_id)
    move(alice, batch_id, "cancelling")
    assert not executions.park(batch, 2_000_000_000)
    assert not executions.park(replace(batch, status="cancelling", execution=1), 2_000_000_000)


def test_two_wakers_start_one_execution(alice: Caller) -> None:
    batch_id = parked(alice)
    batch = batches.get(alice.account_id, batch_id)
    assert [executions.wake(batch), executions.wake(batch)] == [True, False]
    assert set(started(batch_id)) == {batch_id, f"{batch_id}-1"}


def test_a_failed_wake_fails_no_cancel(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = parked(alice)
    set_batch(alice, batch_id, created_at=int(time.time()) - 200)

    def fail(*_: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(executions, "wake", fail)
        assert alice("POST", f"/batches/{batch_id}/cancel").status == 200
    assert invoke("sweep", sample("sweep"))["started"] == 1
    assert set(started(batch_id)) == {batch_id, f"{batch_id}-1"}
    assert invoke("sweep", sample("sweep"))["started"] == 0


def test_a_waker_killed_halfway_is_repaired(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = parked(alice)
    set_batch(alice, batch_id, created_at=int(time.time()) - 200)

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(executions, "start", killed)
        with pytest.raises(KilledError):
            executions.wake(batches.get(alice.account_id, batch_id))
    assert started(batch_id) == {batch_id: "RUNNING"}, "the old one sleeps on"
    assert invoke("sweep", sample("sweep")) == {"started": 1, "ended": 0, "looked": 0, "failed": 0}
    assert started(batch_id)[f"{batch_id}-1"] == "RUNNING"
    assert invoke("sweep", sample("sweep"))["started"] == 0


def test_a_lost_start_keeps_its_pause(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, created_at=int(time.time()) - 200)

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(executions, "start", killed)
        with pytest.raises(KilledError):
            executions.follow(batches.get(alice.account_id, batch_id), 300)
    assert invoke("sweep", sample("sweep"))["started"] == 1
    assert 290 <= input_of(f"{batch_id}-1")["wait_seconds"] <= 300


def test_what_sleeps_for_another_reason_is_not_looked_at(alice: Caller) -> None:
    batch_id = parked(alice)
    batch = batches.get(alice.account_id, batch_id)
    far = int(time.time()) + 900
    assert executions.park(batch, far, look_at=1)
    assert batches.get(alice.account_id, batch_id).look_due(2)
    assert executions.park(batch, far)
    assert batches.get(alice.account_id, batch_id).look_at is None
    assert executions.park(batch, far, look_at=1)
    assert executions.follow(batch, 300)
    assert not batches.get(alice.account_id, batch_id).look_due(time.time())


def test_a_parked_chunks_carry_reaches_the_next_execution(alice: Caller) -> None:
    batch_id = parked(alice)
    kept = msgspec.json.encode(Carry(lines={0: (3, 0.0)})).decode()
    batches.put_carry(batch_id, 0, kept)
    task_again = invoke("validate_batch", alice.start(batch_id))["task"]
    assert run_chunk(task_again)["carry"] == {"lines": {"0": [3, 0.0]}}
