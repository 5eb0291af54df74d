"""Two stacks in one account and region: they do not meet, and nothing is left when both are taken down as documented.

With a stack of its own, because it is taken down; so it is a part of `make upgrade`.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from openai import AuthenticationError

from local import deployment
from local.settings import MODEL, REGION, ROOT
from tests.e2e.conftest import Local, assert_every_line_once, batch_file
from tests.e2e.tasks import blocks
from tests.upgrade.account import emulated_account
from tests.upgrade.inventory import inventory

# The name of one begins that of the other, which a pattern of names could take for its own.
SECOND = "nightshift-two"
FOLDER = ROOT / ".local" / "two-stacks"


@dataclass(frozen=True)
class Stacks:
    first: Local
    second: Local
    before_second: set[str]  # all things of the account

    def both_ways(self) -> list[tuple[Local, Local]]:
        return [(self.first, self.second), (self.second, self.first)]


@pytest.fixture(scope="module")
def stacks() -> Iterator[Stacks]:
    with emulated_account(FOLDER) as first:
        before = inventory(first.aws)
        deployment.deploy_built(first.description["aws_endpoint_url"], FOLDER / "build", SECOND)
        with closing(second(first)) as other:
            yield Stacks(first, other, before)


def second(first: Local) -> Local:
    """The second stack, with a secret, a route and an account of its own."""
    endpoint = first.description["aws_endpoint_url"]
    api = deployment.stack_outputs(endpoint, SECOND)["RestApiId"]
    base_url = f"{first.description['base_url'].rpartition('/_aws/')[0]}/_aws/execute-api/{api}/v1"
    secret = f"{SECOND}/upstream"
    first.aws("secretsmanager").create_secret(Name=secret, SecretString="theirs")
    routes = FOLDER / "routes.json"
    route = {"model": MODEL, "provider": "p", "base_url": first.description["upstream_url"], "upstream_model": "m"}
    routes.write_text(json.dumps([route | {"sku": {"id": "two"}, "api_key_secret": secret}]))
    operate(endpoint, "routes", "apply", str(routes))
    operate(endpoint, "accounts", "create", "theirs")
    key = operate(endpoint, "keys", "create", "--account", "theirs").strip()
    named = {"base_url": base_url, "stack_name": SECOND, "api_key": key, "other_api_key": key}
    return Local(FOLDER, first.description | named)


def operate(endpoint: str, *words: str) -> str:
    """`nightshift admin` on the second stack, as on AWS."""
    command = [str(Path(sys.executable).with_name("nightshift")), "admin", *words, "--stack-name", SECOND]
    environment = deployment.environment(endpoint)
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_each_stack_answers_its_own_callers_only(stacks: Stacks) -> None:
    for ours, theirs in stacks.both_ways():
        batch = ours.ended(ours.create(batch_file(20)))
        assert batch.status == "completed"
        assert_every_line_once(ours, batch.id, 20)
        with pytest.raises(AuthenticationError):
            theirs.openai(ours.description["api_key"]).batches.retrieve(batch.id)
        assert batch.id not in {each.id for each in theirs.client.batches.list()}
        assert batch.id not in theirs.stored()


def resources(stack: Local) -> dict[str, str]:
    """The names or ARNs of the stack's resources, by their logical ids."""
    pages = stack.aws("cloudformation").get_paginator("list_stack_resources")
    found = pages.paginate(StackName=stack.description["stack_name"]).search("StackResourceSummaries[]")
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}


def test_no_name_is_taken_twice(stacks: Stacks) -> None:
    first, other = resources(stacks.first), resources(stacks.second)
    assert len(first) > 70
    taken = {name for name, value in first.items() if value in other.values()}
    assert taken == {"RestApiv1Stage"}, "the stage of an API is within the API"


def calls(aws: Callable[[str], Any], outputs: dict[str, str], stack_name: str) -> dict[str, Callable[[], object]]:
    """A call to each thing of a stack that functions use, but for logs: the emulator does not know their ARNs' end."""
    dynamodb, key = aws("dynamodb"), {"pk": {"S": "a"}, "sk": {"S": "b"}}
    event = {"Source": "tests", "DetailType": "try", "Detail": "{}", "EventBusName": outputs["EventBusName"]}
    found: dict[str, Callable[[], object]] = {
        "read an object": lambda: aws("s3").get_object(Bucket=outputs["BucketName"], Key="work/a"),
        "write an object": lambda: aws("s3").put_object(Bucket=outputs["BucketName"], Key="work/a", Body=b""),
        "list objects": lambda: aws("s3").list_objects_v2(Bucket=outputs["BucketName"], Prefix="work/"),
        "send a webhook": lambda: aws("sqs").send_message(QueueUrl=outputs["WebhookQueueUrl"], MessageBody="{}"),
        "bury a webhook": lambda: aws("sqs").send_message(QueueUrl=outputs["WebhookDeadLettersUrl"], MessageBody="{}"),
        "send an event": lambda: aws("events").put_events(Entries=[event]),
        "run a batch": lambda: aws("stepfunctions").start_execution(
            stateMachineArn=outputs["StateMachineArn"], name="batch_a", input="{}"
        ),
        "read a provider's key": lambda: aws("secretsmanager").get_secret_value(SecretId=f"{stack_name}/upstream"),
    }
    for table in (name for name in outputs if name.endswith("Table")):
        found[f"read {table}"] = lambda name=outputs[table]: dynamodb.get_item(TableName=name, Key=key)  # type: ignore[misc]
    return found


def allowed(call: Callable[[], object]) -> bool:
    """Whether IAM allows a call. What it was for need not exist."""
    try:
        call()
    except ClientError as error:
        return "AccessDenied" not in error.response["Error"]["Code"]
    return True


def acting_as(stack: Local, role: str) -> Callable[[str], Any]:
    """Clients of AWS with the role's permissions."""
    arn = stack.aws("iam").get_role(RoleName=role)["Role"]["Arn"]
    given = stack.aws("sts").assume_role(RoleArn=arn, RoleSessionName="tests")["Credentials"]
    session = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], REGION)
    return cache(lambda service: session.client(service, endpoint_url=stack.description["aws_endpoint_url"]))


@pytest.mark.parametrize("way", [0, 1], ids=["first", "second"])
def test_no_function_may_use_the_other_stack(stacks: Stacks, way: int) -> None:
    ours, theirs = stacks.both_ways()[way]
    roles = [name for logical, name in resources(ours).items() if logical.endswith("Role")]
    assert len(roles) >= 11
    at_home = set()
    for aws in (acting_as(ours, role) for role in roles):
        home = calls(aws, ours.outputs, ours.description["stack_name"])
        at_home |= {name for name, call in home.items() if allowed(call)}
        away = calls(aws, theirs.outputs, theirs.description["stack_name"])
        assert not [name for name, call in away.items() if allowed(call)]
    assert at_home == home.keys()


def take_down(stack: Local, folder: Path) -> None:
    """What docs/tasks.md says under "Take it all down", in one shell that says yes to everything."""
    name = stack.description["stack_name"]
    script = "".join(block for title, block in blocks() if title == "Take it all down")
    assert script
    for documented, actual in (
        ("--stack-name nightshift", f"--stack-name {name}"),
        ("batches list", f"batches list --stack-name {name}"),
        ("nightshift/openai", f"{name}/upstream"),
    ):
        assert documented in script
        script = script.replace(documented, actual)
    aws = folder / "aws"
    aws.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {ROOT}/tests/upgrade/aws.py "$@"\n')
    aws.chmod(0o755)
    environment = deployment.environment(stack.description["aws_endpoint_url"])
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=ROOT,
        env=environment | {"PATH": f"{folder}:{os.environ['PATH']}"},
        input="y\n" * 9,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def left_in(stack: Local) -> set[str]:
    """What the account holds after the stack was taken down.

    A function that ends after that writes its last lines, and the emulator makes the log group for them anew. On AWS it
    may not: no role has logs:CreateLogGroup. A group that was made anew has no retention.
    """
    group = stack.outputs["LogGroupName"]
    groups = stack.aws("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    anew = {group for each in groups if each["logGroupName"] == group and "retentionInDays" not in each}
    return inventory(stack.aws) - {f"logs describe_log_groups {name}" for name in anew}


def test_what_is_taken_down_leaves_nothing(stacks: Stacks, tmp_path: Path) -> None:
    seconds = inventory(stacks.first.aws) - stacks.before_second
    assert len(seconds) > 60
    # What `sam deploy` makes for all stacks of the account, and the bus that every account has.
    shared = {thing for thing in stacks.before_second if "aws-sam-cli-managed-default" in thing}
    shared |= {"events list_event_buses default"}
    assert len(shared) == 3
    assert stacks.second.outputs

    take_down(stacks.first, tmp_path)
    assert left_in(stacks.first) == seconds | shared
    # The other one still has the code and the layers of its functions.
    assert stacks.second.ended(stacks.second.create(batch_file(20))).status == "completed"

    take_down(stacks.second, tmp_path)
    assert left_in(stacks.second) - {f"logs describe_log_groups {stacks.first.outputs['LogGroupName']}"} == shared
