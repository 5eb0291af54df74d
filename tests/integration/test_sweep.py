"""sweep: batches that no execution works on are started or ended, and a broken one does not stop the others."""

import contextlib
import time

import pytest
from nightshift.batches.record import FORMAT
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


def test_a_batch_with_a_lost_start_starts_once(alice: Caller) -> None:
    put_batch(alice, "batch_lost", created_at=int(time.time()) - 200)
    assert sweep() == {"started": 1, "ended": 0, "looked": 0, "failed": 0}
    assert executions() == ["batch_lost"]
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}


def test_a_cancelled_lost_start_is_started(alice: Caller) -> None:
    put_batch(alice, "batch_lost", created_at=int(time.time()) - 200)
    move(alice, "batch_lost", "cancelling")
    assert sweep() == {"started": 1, "ended": 0, "looked": 0, "failed": 0}


def test_running_and_new_batches_are_left_alone(alice: Caller) -> None:
    running = alice.create(input_lines(1))
    set_batch(alice, running, created_at=int(time.time()) - 200)
    put_batch(alice, "batch_young", created_at=int(time.time()))
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}
    assert executions() == [running]


def test_a_batch_of_a_later_version_is_left_alone(alice: Caller) -> None:
    batch_id = alice.create(input_lines(1))
    set_batch(alice, batch_id, created_at=int(time.time()) - 200, format=FORMAT + 1)
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}
    assert executions() == [batch_id]


def test_a_batch_left_open_by_an_abort_is_ended(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    set_batch(alice, batch_id, created_at=int(time.time()) - 200)
    [arn] = [
        execution["executionArn"]
        for execution in aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())[
            "executions"
        ]
    ]
    aws.client("stepfunctions").stop_execution(executionArn=arn)
    assert sweep() == {"started": 0, "ended": 1, "looked": 0, "failed": 0}
    batch = alice.batch(batch_id)
    assert (batch["status"], batch["request_counts"]["failed"]) == ("completed", 2)
    assert batch["errors"]
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}


def test_a_batch_without_an_execution_gets_one(alice: Caller) -> None:
    put_batch(alice, "batch_lost", created_at=int(time.time()) - 200)
    move(alice, "batch_lost", "in_progress")
    assert sweep() == {"started": 1, "ended": 0, "looked": 0, "failed": 0}


def test_an_overdue_batch_expires(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    now = int(time.time())
    set_batch(alice, batch_id, created_at=now - 26 * HOURS, expires_at=now - 2 * HOURS)
    assert sweep() == {"started": 0, "ended": 1, "looked": 0, "failed": 0}
    batch = alice.batch(batch_id)
    assert (batch["status"], batch["request_counts"]["failed"]) == ("expired", 2)
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}


def test_a_batch_just_overdue_is_left_alone(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    now = int(time.time())
    set_batch(alice, batch_id, created_at=now - 24 * HOURS, expires_at=now - HOURS // 2)
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}


def test_a_broken_batch_blocks_no_other(alice: Caller) -> None:
    now = int(time.time())
    broken, healthy = alice.begin(input_lines(1)), alice.begin(input_lines(1))
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=plan.key(broken))
    set_batch(alice, broken, created_at=now - 50 * HOURS, expires_at=now - 26 * HOURS)
    set_batch(alice, healthy, created_at=now - 26 * HOURS, expires_at=now - 2 * HOURS)
    put_batch(alice, "batch_lost", created_at=now - 200)
    with contextlib.suppress(Exception):  # it may raise at its end, for an alarm
        sweep()
    assert alice.batch(healthy)["status"] == "expired"
    assert "batch_lost" in executions()


def test_a_batch_cancelled_long_ago_is_ended(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    now = int(time.time())
    set_batch(alice, batch_id, created_at=now - 2 * HOURS)
    alice("POST", f"/batches/{batch_id}/cancel")
    assert sweep() == {"started": 0, "ended": 0, "looked": 0, "failed": 0}
    set_batch(alice, batch_id, cancelling_at=now - HOURS)
    assert sweep() == {"started": 0, "ended": 1, "looked": 0, "failed": 0}
    assert alice.batch(batch_id)["status"] == "cancelled"
