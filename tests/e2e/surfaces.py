"""What a run of the end-to-end tests leaves where people look, and the secrets that must not be there."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from tests.e2e.receivers import Receiver

Client = Callable[[str], Any]  # boto3's client of a service

# Each prompt of these tests ends so.
PROMPT_END = "And more."
# An API key, and a webhook's signing secret, whoever made them.
_SHAPES = {"an API key": r"sk-ns-[\w-]{40,}", "a signing secret": r"whsec_[\w+/]{40,}"}
_STORED = "tables"


class Secrets:
    """What must be kept. Tables alone hold some of it: accounts' signing secrets, and the values in routes."""

    def __init__(self) -> None:
        self.nowhere = {"a prompt": PROMPT_END}
        self.in_tables: dict[str, str] = {}

    def add_key(self, key: str) -> None:
        if key.startswith("sk-ns-") and len(key) > 40:  # and not what a test made up
            self.nowhere[f"the API key {key[:12]}…"] = key.removeprefix("sk-ns-")

    def add_signing_secret(self, secret: str) -> None:
        self.in_tables[f"the signing secret {secret[:10]}…"] = secret.removeprefix("whsec_")

    def found_in(self, place: str, text: str) -> list[str]:
        """Which of them are in the text of this place."""
        kept, shapes = self.nowhere | self.in_tables, _SHAPES
        if place == _STORED:
            kept, shapes = self.nowhere, {"an API key": _SHAPES["an API key"]}
        found = [name for name, secret in kept.items() if secret in text]
        return found + [name for name, shape in shapes.items() if re.search(shape, text)]


class Heard:
    """What the callers and operators of a session were told: errors of the API, and what commands printed."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self.errors: list[str] = []
        self.printed: list[str] = []

    def answer(self, response: httpx.Response) -> None:
        """Keep an error. A webhook's signing secret is shown on purpose, and nowhere else."""
        if response.status_code >= 400:
            response.read()
            self.errors.append(f"{response.headers}\n{response.text}")
        elif response.url.path.endswith(("/webhook", "/webhook/rotate")):
            response.read()
            for secret in re.findall(_SHAPES["a signing secret"], response.text):
                self._secrets.add_signing_secret(secret)

    def command(self, words: tuple[str, ...], done: "subprocess.CompletedProcess[str]") -> None:
        """Keep what a command printed, but for the key that ``keys create`` and ``keys rotate`` show on purpose."""
        printed = done.stdout
        if words[:3] in (("admin", "keys", "create"), ("admin", "keys", "rotate")):
            key, _, printed = printed.partition("\n")
            self._secrets.add_key(key)
        self.printed.append(printed + done.stderr)


class Bus:
    """A rule of the stack's bus with a queue, which gets every event from ``open`` on."""

    def __init__(self, aws: Client, name: str) -> None:
        self._events, self._sqs = aws("events"), aws("sqs")
        self._name, self._heard = name, f"heard-{name}"

    def open(self) -> None:
        self._queue = self._sqs.create_queue(QueueName=self._heard)["QueueUrl"]
        found = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])
        arn = found["Attributes"]["QueueArn"]
        allowed = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
        policy = {"Version": "2012-10-17", "Statement": [allowed | {"Resource": arn}]}
        self._sqs.set_queue_attributes(QueueUrl=self._queue, Attributes={"Policy": json.dumps(policy)})
        every = json.dumps({"source": [{"prefix": ""}]})
        self._events.put_rule(EventBusName=self._name, Name=self._heard, EventPattern=every)
        targets = [{"Id": "queue", "Arn": arn}]
        self._events.put_targets(EventBusName=self._name, Rule=self._heard, Targets=targets)

    def drain(self) -> str:
        """Every event until now. A last one of our own shows that the queue has got them."""
        last = {"Source": "tests", "DetailType": "the last one", "Detail": "{}", "EventBusName": self._name}
        assert self._events.put_events(Entries=[last])["FailedEntryCount"] == 0
        found, give_up = "", time.monotonic() + 30
        while '"the last one"' not in found:
            assert time.monotonic() < give_up, "the rule has not got our event"
            found += "\n".join(messages(self._sqs, self._queue))
        return found

    def close(self) -> None:
        self._events.remove_targets(EventBusName=self._name, Rule=self._heard, Ids=["queue"])
        self._events.delete_rule(EventBusName=self._name, Name=self._heard)
        self._sqs.delete_queue(QueueUrl=self._queue)


def messages(sqs: Any, queue: str) -> Iterator[str]:
    """The body of each message of a queue. They stay there, but nobody sees them for a minute."""
    while batch := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=60).get("Messages"):
        yield from (message["Body"] for message in batch)


def surfaces(aws: Client, outputs: dict[str, str], heard: Heard, bus: Bus, since: float) -> Iterator[tuple[str, str]]:
    """Each place with all of its text since a moment (seconds since 1970)."""
    yield "logs", logged(aws, since)
    yield "histories of executions", "\n".join(histories(aws, outputs["StateMachineArn"], since))
    yield "events", bus.drain()
    yield "dead letters", "\n".join(dead_letters(aws))
    yield "webhooks", "\n".join(Receiver.everything)
    yield "errors of the API", "\n".join(heard.errors)
    yield "what commands print", "\n".join(heard.printed)
    # The functions' own are lines of the log, from which the emulator makes no metrics.
    yield "metrics", str([page["Metrics"] for page in aws("cloudwatch").get_paginator("list_metrics").paginate()])
    yield _STORED, "\n".join(items(aws, outputs))
    yield "keys of objects", "\n".join(object_keys(aws, outputs["BucketName"]))


def logged(aws: Client, since: float) -> str:
    """Every line that a function, or a command of the operator, has logged, metrics among them."""
    logs = aws("logs")
    pages = logs.get_paginator("filter_log_events")
    return "\n".join(
        event["message"]
        for group in logs.describe_log_groups()["logGroups"]
        for page in pages.paginate(logGroupName=group["logGroupName"], startTime=int(since * 1000))
        for event in page["events"]
    )


def histories(aws: Client, machine: str, since: float) -> Iterator[str]:
    """What each execution was given, did, returned and failed with; those that a Map Run has started too."""
    sfn = aws("stepfunctions")
    for execution in executions(sfn, since, stateMachineArn=machine):
        yield from history(sfn, execution)
        for run in sfn.list_map_runs(executionArn=execution)["mapRuns"]:
            for child in executions(sfn, since, mapRunArn=run["mapRunArn"]):
                yield from history(sfn, child)


def history(sfn: Any, execution: str) -> Iterator[str]:
    # The emulator's steps of a Map Run's executions lack what these were given and returned.
    yield str(sfn.describe_execution(executionArn=execution))
    for page in sfn.get_paginator("get_execution_history").paginate(executionArn=execution):
        yield str(page["events"])


def executions(sfn: Any, since: float, **of: str) -> Iterator[str]:
    """The ARNs of the executions of a state machine, or of a Map Run, that have begun since then."""
    for page in sfn.get_paginator("list_executions").paginate(**of):
        yield from (each["executionArn"] for each in page["executions"] if each["startDate"].timestamp() >= since)


def dead_letters(aws: Client) -> Iterator[str]:
    sqs = aws("sqs")
    for queue in sqs.list_queues()["QueueUrls"]:
        if "DeadLetters" in queue:
            yield from messages(sqs, queue)


def items(aws: Client, outputs: dict[str, str]) -> Iterator[str]:
    """The items of the stack's tables."""
    for name in (value for output, value in outputs.items() if output.endswith("Table")):
        yield from (str(page["Items"]) for page in aws("dynamodb").get_paginator("scan").paginate(TableName=name))


def object_keys(aws: Client, bucket: str) -> Iterator[str]:
    for page in aws("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (each["Key"] for each in page.get("Contents", []))
