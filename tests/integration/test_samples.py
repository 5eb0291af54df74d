"""Each function has a sample payload in ``events/``, and answers it."""

import json

import msgspec
import pytest
from nightshift.batches import planning
from nightshift.batches import store as batches
from nightshift.batches.record import Batch, RequestCounts
from nightshift.core import aws, settings
from nightshift.files import store as files
from nightshift.input import plan
from nightshift.input.inspection import inspect
from nightshift.input.plan import Task

from tests.integration.support import ROOT, Caller, Server, input_lines, invoke, sample

FUNCTIONS = sorted(path.parent.name for path in ROOT.glob("functions/*/app.py"))
TASK = sample("run_chunk")["task"]


@pytest.fixture
def sampled(upstream: Server) -> Caller:
    """The batch of the samples, in progress."""
    caller = Caller(TASK["account_id"], "-")
    content = "".join(line + "\n" for line in input_lines(3)).encode()
    file_id = json.loads(sample("create_batch")["body"])["input_file_id"]
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=files.key(caller.account_id, file_id), Body=content)
    file = files.record(
        caller.account_id, file_id, filename="in.jsonl", purpose="batch", size=len(content), expires_at=None
    )
    inspected = inspect(file, "/v1/chat/completions", 20)
    assert inspected is not None
    batches.put(
        Batch(
            account_id=caller.account_id,
            id=TASK["batch_id"],
            status="validating",
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            created_at=1_763_950_231,
            expires_at=4_000_000_000,
            plan=planning.write_plan(caller.account_id, TASK["batch_id"], inspected),
        )
    )
    return caller


def test_every_function_has_its_sample() -> None:
    assert sorted(path.stem for path in ROOT.glob("events/*.json")) == FUNCTIONS


def test_the_samples_run_a_whole_batch(sampled: Caller) -> None:
    assert invoke("validate_batch", sample("validate_batch"))["status"] == "in_progress"
    assert plan.read(TASK["batch_id"]) == [msgspec.convert(TASK, Task)]
    assert invoke("run_chunk", sample("run_chunk"))["state"] == "done"
    assert invoke("finalize_batch", sample("finalize_batch"))["status"] == "completed"
    batch = batches.get(sampled.account_id, TASK["batch_id"])
    assert batch.request_counts == RequestCounts(3, 3, 0)


def test_the_abandoned_sample_is_followed(sampled: Caller) -> None:
    assert invoke("close_abandoned", sample("close_abandoned")) == {"status": "validating"}
    assert batches.get(sampled.account_id, TASK["batch_id"]).execution == 1


@pytest.mark.parametrize("function", ["api", "create_batch"])
def test_the_http_samples_are_answered(function: str) -> None:
    assert invoke(function, sample(function))["statusCode"] == 401


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("sweep", {"started": 1, "ended": 0, "looked": 0, "failed": 0}),
        ("purge_file", {"batchItemFailures": []}),
        ("publish_events", {"batchItemFailures": []}),
        ("deliver_webhook", {"batchItemFailures": []}),
    ],
)
def test_the_internal_samples_are_answered(function: str, answer: dict[str, object]) -> None:
    assert invoke(function, sample(function)) == answer
