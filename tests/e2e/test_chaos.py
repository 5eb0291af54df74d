"""Failures while a batch runs: every line still comes out exactly once, in order.

`make test` runs this small; `make chaos` sets CHAOS_LINES to run it large.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from msgspec.structs import replace
from nightshift.core.ids import request_line_id
from openai.types import Batch

from local.settings import MODEL, ROOT_CREDENTIALS
from tests.e2e.conftest import Killer, Local, Receiver, assert_every_line_once, batch_file, wait_for

LINES = int(os.environ.get("CHAOS_LINES", "3000"))
FEW = LINES // 3  # for tests that do not depend on the number of lines
SECONDS = 60 + LINES / 20
# How many requests one worker has in flight.
IN_FLIGHT = 256


@pytest.fixture
def kill(killing: Callable[..., Killer]) -> Killer:
    return killing("RunChunk", (2, 4), times=max(3, LINES // 1000))


def whole(local: Local, batch: Batch, count: int, codes: Set[str] = frozenset()) -> None:
    """Every line once, in order, in the right file, and with the answer to its own request."""
    assert_every_line_once(local, batch.id, count, codes)
    for line in local.lines(batch.output_file_id):
        said = line["response"]["body"]["choices"][0]["message"]["content"]
        assert said == f"Sentence {line['custom_id'].removeprefix('request-')}."
    for line in local.lines(batch.error_file_id):
        assert (line["response"] is None) != (line["error"] is None)
        assert line["response"] is None or line["response"]["status_code"] >= 400


def one_end(receiver: Receiver, status: str) -> None:
    """The receiver got one terminal event, and no second one."""
    wait_for(lambda: receiver.received)
    time.sleep(1)  # for a second webhook, which must not arrive
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert {json.loads(body)["type"] for _, body in receiver.received} == {f"batch.{status}"}


def resent(local: Local, batch: Batch) -> int:
    """How many of the batch's requests the upstream received again without having answered with an error."""
    counters = local.upstream.counters()
    # By their idempotency keys, because a worker of an earlier batch may still be sending.
    ours = request_line_id(batch.id, 0)[:-4]
    received: list[int] = [count for key, count in counters["requests"].items() if key.startswith(ours)]
    badly: int = sum(counters["by_status"].get(status, 0) for status in ("500", "429", "503"))
    return sum(received) - len(received) - badly - int(counters["reset"] + counters["hung"])


def report(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


def test_killed_workers_lose_and_double_no_line(local: Local, kill: Killer, receive: Callable[..., Receiver]) -> None:
    local.upstream.set(
        latency_ms=400,
        jitter_ms=350,
        error_rate={"500": 0.05, "429": 0.05},
        reset_rate=0.01,
    )
    receiver, started = receive(), time.monotonic()
    batch = local.create(batch_file(LINES), callback_url=receiver.url)
    wait_for(lambda: kill.kills >= 2)
    local.upstream.set(down=True)
    time.sleep(3)  # the length of the outage
    local.upstream.set(down=False)

    batch = local.ended(batch, SECONDS)
    kill.stop()

    assert batch.status == "completed"
    # Only lines with five failed tries in a row (500 or reset) are in the error file.
    whole(local, batch, LINES, {"upstream_unreachable"})
    again = resent(local, batch)
    seconds = time.monotonic() - started
    report(f"{kill.kills} workers killed; {again} of {LINES} requests sent again because of it; {seconds:.0f} s")
    # Each kill, and the outage, costs at most the requests that were in flight or not saved: eight seconds of answers,
    # and the time of saving them.
    assert again <= (kill.kills + 1) * (IN_FLIGHT + 9 * IN_FLIGHT / 0.4)
    one_end(receiver, "completed")


def test_cancel_with_killed_workers_keeps_lines(local: Local, kill: Killer, receive: Callable[..., Receiver]) -> None:
    local.upstream.set(latency_ms=1000, jitter_ms=900)
    receiver = receive()
    batch = local.create(batch_file(LINES), callback_url=receiver.url)
    moment = random.uniform(0, 6)
    time.sleep(moment)

    local.client.batches.cancel(batch.id)
    asked = time.monotonic()
    batch = local.ended(batch, SECONDS)

    report(f"cancelled {moment:.1f} s after create, {kill.kills} workers killed; {time.monotonic() - asked:.1f} s")
    assert batch.status == "cancelled"
    whole(local, batch, LINES, {"batch_cancelled"})
    one_end(receiver, "cancelled")


def test_expiry_with_killed_workers_keeps_lines(local: Local, kill: Killer, receive: Callable[..., Receiver]) -> None:
    local.upstream.set(latency_ms=1000, jitter_ms=900)
    # Long enough to be validated on a busy machine, and too short for the lines.
    receiver, window = receive(), random.randint(4, 7)
    with local.environment("CreateBatch", COMPLETION_WINDOW_SECONDS=str(window)):
        batch = local.create(batch_file(LINES), callback_url=receiver.url)
    created = time.monotonic()

    batch = local.ended(batch, SECONDS)

    seconds = time.monotonic() - created
    report(f"window of {window} s, {kill.kills} workers killed; expired {seconds:.1f} s after create")
    assert batch.status == "expired"
    whole(local, batch, LINES, {"batch_expired"})
    one_end(receiver, "expired")


def test_two_workers_on_a_chunk_double_no_line(local: Local) -> None:
    local.upstream.set(latency_ms=500, jitter_ms=400, error_rate={"400": 0.1})
    batch = local.create(batch_file(LINES))
    wait_for(lambda: local.upstream.counters()["received"])
    plan = local.aws("s3").get_object(Bucket=local.bucket(), Key=f"work/{batch.id}/plan.json")["Body"].read()

    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(run_chunk, local, task) for task in json.loads(plan) for _ in range(2)]
        batch = local.ended(batch, SECONDS)
        states = [task.result()["state"] for task in tasks]

    assert batch.status == "completed"
    whole(local, batch, LINES)
    received = local.upstream.counters()["received"]
    report(f"three workers for one chunk: {received} requests for {LINES} lines; the copies ended as {states}")
    assert received <= 3 * LINES


def run_chunk(local: Local, task: dict[str, Any]) -> dict[str, Any]:
    """Invoke RunChunk as the state machine does, and wait for its answer."""
    functions = boto3.client(
        "lambda",
        endpoint_url=local.description["aws_endpoint_url"],
        region_name=local.description["region"],
        aws_access_key_id=ROOT_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ROOT_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(read_timeout=900, retries={"total_max_attempts": 1}),
    )
    prefix = f"{local.description['stack_name']}-RunChunk-"
    names = [found["FunctionName"] for found in functions.list_functions()["Functions"]]
    (name,) = [each for each in names if each.startswith(prefix)]
    answer = functions.invoke(
        FunctionName=name, InvocationType="RequestResponse", Payload=json.dumps({"task": task, "retries": 0})
    )
    assert "FunctionError" not in answer, answer["Payload"].read()
    result: dict[str, Any] = json.load(answer["Payload"])
    return result


@pytest.fixture
def short_timeout(local: Local, operator: None) -> Iterator[None]:
    """The route has a timeout of three seconds."""
    from nightshift.routes import store as routes

    before = routes.for_model(MODEL)
    routes.apply([replace(route, timeout_seconds=3) for route in before])
    yield
    routes.apply(before)


@pytest.mark.usefixtures("short_timeout")
def test_hanging_requests_retry_or_time_out(local: Local, killing: Callable[..., Killer]) -> None:
    local.upstream.set(latency_ms=200, jitter_ms=150, hang_rate=0.1, error_rate={"502": 0.02})
    batch = local.create(batch_file(FEW))
    killing("RunChunk", (2, 4), times=1)

    batch = local.ended(batch, SECONDS)

    assert batch.status == "completed"
    whole(local, batch, FEW, {"request_timeout"})
    hung = local.upstream.counters()["hung"]
    failed = 0 if batch.request_counts is None else batch.request_counts.failed
    report(f"{hung} requests hung; {failed} of {FEW} lines failed")
    assert hung > 0
    # A line fails after five failed tries in a row: a chance of 0.12 ** 5, one in 40,000.
    assert failed <= 3 + FEW / 1000


def test_aborted_execution_ends_its_batch(local: Local, receive: Callable[..., Receiver]) -> None:
    local.upstream.set(latency_ms=2000, jitter_ms=1500)
    receiver = receive()
    batch = local.create(batch_file(LINES), callback_url=receiver.url)
    wait_for(lambda: (counts := local.client.batches.retrieve(batch.id).request_counts) and counts.completed)
    stepfunctions = local.aws("stepfunctions")
    machines = stepfunctions.list_state_machines()["stateMachines"]
    (machine,) = [each["stateMachineArn"] for each in machines if each["name"].endswith("run-batch")]
    running = stepfunctions.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
    (execution,) = [each["executionArn"] for each in running if each["name"] == batch.id]

    stepfunctions.stop_execution(executionArn=execution)
    batch = local.ended(batch, 30)

    assert batch.status == "completed"
    whole(local, batch, LINES, {"internal_error"})
    left = [line for line in local.lines(batch.error_file_id) if line["error"]]
    assert bool(left) == bool(batch.errors)
    assert batch.request_counts is not None
    assert batch.request_counts.completed > 0
    report(f"aborted: {batch.request_counts.completed} answered, {len(left)} internal_error")
    one_end(receiver, "completed")


def test_killed_validators_and_finalizers(
    local: Local, killing: Callable[..., Killer], receive: Callable[..., Receiver]
) -> None:
    receiver = receive()
    validators = killing("ValidateBatch", (0.05, 0.5), times=2)
    finalizers = killing("FinalizeBatch", (0.05, 0.5), times=3)
    with local.environment("CreateBatch", SYNC_VALIDATION_SECONDS="0"):
        batch = local.create(batch_file(FEW), callback_url=receiver.url)

    batch = local.ended(batch, SECONDS)

    report(f"{validators.kills} workers killed while validating, {finalizers.kills} while finalizing")
    assert batch.status == "completed"
    assert batch.errors is None
    whole(local, batch, FEW)
    assert resent(local, batch) == 0
    one_end(receiver, "completed")


def test_upstream_outage_costs_no_line(local: Local) -> None:
    local.upstream.set(down=True, latency_ms=100)
    batch = local.create(batch_file(FEW))
    time.sleep(20)  # the length of the outage
    assert local.client.batches.retrieve(batch.id).status == "in_progress"
    local.upstream.set(down=False)
    back = time.monotonic()

    wait_for(lambda: local.upstream.counters()["received"])
    first = time.monotonic() - back
    batch = local.ended(batch, SECONDS)

    seconds = time.monotonic() - back
    report(f"back after 20 s: first request {first:.1f} s later, {FEW} lines done {seconds:.1f} s later")
    assert batch.status == "completed"
    whole(local, batch, FEW)
    assert batch.error_file_id is None
    assert first < 25
    assert seconds < 40 + FEW / 100


def test_retry_after_is_honoured(local: Local) -> None:
    local.upstream.set(error_rate={"429": 1.0}, retry_after_s=2)
    batch = local.create(batch_file(FEW))
    wait_for(lambda: local.upstream.counters()["received"])
    time.sleep(5)
    counters = local.upstream.counters()
    # All requests in flight at the first refusal, and half as many every two seconds later.
    assert counters["received"] <= 2 * IN_FLIGHT
    assert max(counters["requests"].values()) <= 1 + 5 // 2

    local.upstream.set(error_rate={"429": 0.05}, latency_ms=200)
    batch = local.ended(batch, SECONDS)

    assert batch.status == "completed"
    whole(local, batch, FEW)
    assert batch.error_file_id is None
    assert resent(local, batch) == 0
