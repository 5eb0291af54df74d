"""A fresh AWS (moto) with the template's tables for every test, and two callers."""

import re
from collections.abc import Iterator

import pytest
from moto import mock_aws
from nightshift.accounts import store as accounts
from nightshift.core import aws

from local import emulated
from tests.integration.simulator import Simulator, simulating
from tests.integration.support import REGION, Caller, Server, apply_route, new_caller, serving, template_tables

TRIVIAL_MACHINE = '{"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}'


@pytest.fixture(scope="package", autouse=True)
def clients() -> Iterator[None]:
    """moto's state is new for each test; the clients are not, because making them is what takes time."""
    aws._client.cache_clear()
    yield
    aws._client.cache_clear()


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "BUCKET": "nightshift-bucket",
        "EVENT_BUS": "nightshift",
        "SYNC_VALIDATION_SECONDS": "20",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in emulated.GIVEN:
        monkeypatch.delenv(name, raising=False)
    accounts._known.clear()
    with mock_aws():
        for name, definition in template_tables().items():
            aws.client("dynamodb").create_table(TableName=f"nightshift-{name}", **definition)
            variable = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()  # IdempotencyKeys: IDEMPOTENCY_KEYS_TABLE
            monkeypatch.setenv(f"{variable}_TABLE", f"nightshift-{name}")
        aws.client("s3").create_bucket(
            Bucket="nightshift-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        aws.client("events").create_event_bus(Name="nightshift")
        queue = aws.client("sqs").create_queue(QueueName="webhooks", Attributes={"VisibilityTimeout": "180"})
        monkeypatch.setenv("WEBHOOK_QUEUE_URL", queue["QueueUrl"])
        event_letters = aws.client("sqs").create_queue(QueueName="event-dead-letters")
        monkeypatch.setenv("EVENT_DEAD_LETTERS_URL", event_letters["QueueUrl"])
        dead_letters = aws.client("sqs").create_queue(QueueName="webhook-dead-letters")
        monkeypatch.setenv("WEBHOOK_DEAD_LETTERS_URL", dead_letters["QueueUrl"])
        machine = aws.client("stepfunctions").create_state_machine(
            name="run-batch", definition=TRIVIAL_MACHINE, roleArn="arn:aws:iam::123456789012:role/run-batch"
        )
        monkeypatch.setenv("STATE_MACHINE", machine["stateMachineArn"])
        yield


@pytest.fixture
def alice() -> Caller:
    return new_caller("alice")


@pytest.fixture
def bob() -> Caller:
    return new_caller("bob")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on loopback, for an upstream or a webhook's receiver."""
    with serving() as running:
        yield running


@pytest.fixture
def upstream(server: Server) -> Server:
    """The upstream that the route of ``MODEL`` leads to."""
    apply_route(server.url, timeout_seconds=5)
    return server


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with simulating() as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Simulator:
    """The upstream simulator, without faults and with its counters at zero."""
    running_simulator.reset()
    return running_simulator
