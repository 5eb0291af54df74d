"""sweep: batches that nobody works on are started or ended, and one that cannot be does not keep the others."""

import contextlib
import time

import pytest
from nightshift.core import aws, settings
from nightshift.input import plan

from tests.integration.support import Caller, input_lines, invoke, move, put_batch, sample, set_batch

HOURS = 3600


@pytest.fixture(autouse=True)
def a_route(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("upstream")


def sweep() -> dict[str, int]:
    return invoke("sweep", sample("sweep"))


def executions() -> list[str]:
    found = aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())
    return [execution["name"] for execution in found["executions"]]


def test_a_batch_that_lost_its_start_is_started_once(alice: Caller) -> None:
    put_batch(alice, "batch_lost", created_at=int(time.time()) - 200)
    assert sweep() == {"started": 1, "ended": 0, "failed": 0}
    assert executions() == ["batch_lost"]
    assert sweep() == {"started": 0, "ended": 0, "failed": 0}


def test_a_cancelled_batch_that_lost_its_start_is_started_to_be_ended(alice: Caller) -> None:
    put_batch(alice, "batch_lost", created_at=int(time.time()) - 200)
    move(alice, "batch_lost", "cancelling")
    assert sweep() == {"started": 1, "ended": 0, "failed": 0}


def test_a_batch_with_an_execution_or_too_young_to_be_lost_is_left_alone(alice: Caller) -> None:
    running = alice.create(input_lines(1))
    set_batch(alice, running, created_at=int(time.time()) - 200)
    put_batch(alice, "batch_young", created_at=int(time.time()))
    assert sweep() == {"started": 0, "ended": 0, "failed": 0}
    assert executions() == [running]


def test_a_batch_that_its_ended_execution_left_open_is_ended(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, created_at=int(time.time()) - 200)
    [arn] = [
        execution["executionArn"]
        for execution in aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())[
            "executions"
        ]
    ]
    aws.client("stepfunctions").stop_execution(executionArn=arn)
    assert sweep() == {"started": 0, "ended": 1, "failed": 0}
    batch = alice.batch(batch_id)
    assert (batch["status"], batch["request_counts"]["failed"]) == ("completed", 2)
    assert batch["errors"]
    assert sweep() == {"started": 0, "ended": 0, "failed": 0}


def test_a_batch_in_progress_without_an_execution_goes_on_in_a_new_one(alice: Caller) -> None:
    put_batch(alice, "batch_lost", created_at=int(time.time()) - 200)
    move(alice, "batch_lost", "in_progress")
    assert sweep() == {"started": 1, "ended": 0, "failed": 0}


def test_an_overdue_batch_is_ended_with_what_it_has(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    now = int(time.time())
    set_batch(alice, batch_id, created_at=now - 26 * HOURS, expires_at=now - 2 * HOURS)
    assert sweep() == {"started": 0, "ended": 1, "failed": 0}
    batch = alice.batch(batch_id)
    assert (batch["status"], batch["request_counts"]["failed"]) == ("expired", 2)
    assert sweep() == {"started": 0, "ended": 0, "failed": 0}


def test_a_batch_within_an_hour_of_its_deadline_is_left_to_its_execution(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    now = int(time.time())
    set_batch(alice, batch_id, created_at=now - 24 * HOURS, expires_at=now - HOURS // 2)
    assert sweep() == {"started": 0, "ended": 0, "failed": 0}


def test_a_batch_that_cannot_be_ended_does_not_keep_the_others_from_it(alice: Caller) -> None:
    now = int(time.time())
    broken, healthy = alice.begin(input_lines(1)), alice.begin(input_lines(1))
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=plan.key(broken))
    set_batch(alice, broken, created_at=now - 50 * HOURS, expires_at=now - 26 * HOURS)
    set_batch(alice, healthy, created_at=now - 26 * HOURS, expires_at=now - 2 * HOURS)
    put_batch(alice, "batch_lost", created_at=now - 200)
    with contextlib.suppress(Exception):  # it may complain, for an alarm, once it has done what it can
        sweep()
    assert alice.batch(healthy)["status"] == "expired"
    assert "batch_lost" in executions()


def test_a_batch_that_was_cancelled_long_ago_is_ended_though_its_execution_runs(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    now = int(time.time())
    set_batch(alice, batch_id, created_at=now - 2 * HOURS)
    alice("POST", f"/batches/{batch_id}/cancel")
    assert sweep() == {"started": 0, "ended": 0, "failed": 0}
    set_batch(alice, batch_id, cancelling_at=now - HOURS)
    assert sweep() == {"started": 0, "ended": 1, "failed": 0}
    assert alice.batch(batch_id)["status"] == "cancelled"
