"""Who may do what, as it is deployed: read by Parliament, a linter of IAM policies, and enforced by the emulator."""

import json
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from boto3 import Session
from botocore.exceptions import ClientError
from nightshift.accounts import store as accounts
from nightshift.core import aws
from nightshift.core.table import Table
from nightshift_cli.main import app
from typer.testing import CliRunner

from local.deployment import admin_environment
from local.settings import SECRET
from tests.e2e.conftest import Local, batch_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports pkg_resources
    import parliament

# What Parliament finds though it is right.
ACCEPTED = {
    # Lambda asks for these without a resource, where its functions are in subnets.
    *("ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
    # It parts ARNs at their colons, and the name of a stream is a time.
    *("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"),
    # It wants every kind of resource that an action knows: express executions and map runs, too.
    *("states:DescribeExecution", "states:ListExecutions"),
}


def policies(iam: Any, role: str) -> Iterator[dict[str, Any]]:
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        yield managed(iam, attached["PolicyArn"])


def managed(iam: Any, arn: str) -> dict[str, Any]:
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document: dict[str, Any] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return document


def actions(finding: Any) -> set[str]:
    return {each if isinstance(each, str) else each["action"] for each in finding.detail}


def test_the_linter_finds_nothing_wrong_with_any_role(local: Local) -> None:
    iam = local.aws("iam")
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    assert len(roles) == 11  # one for each function, and the state machine's
    documents = [document for role in roles for document in policies(iam, role)]
    for document in [*documents, managed(iam, local.outputs["OperatorPolicyArn"])]:
        found = parliament.analyze_policy_string(json.dumps(document)).findings
        assert [str(each) for each in found if not actions(each) <= ACCEPTED] == [], document


@pytest.fixture
def person(local: Local, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A person who has the stack's policy, and no other right: this process's user of AWS."""
    iam, name = local.aws("iam"), f"operator-{uuid.uuid4().hex[:8]}"
    arn = local.outputs["OperatorPolicyArn"]
    iam.create_user(UserName=name)
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    own = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    for variable, value in (admin_environment(local.description["aws_endpoint_url"], local.outputs) | own).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "path")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    aws._client.cache_clear()
    yield Session()
    aws._client.cache_clear()
    iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.detach_user_policy(UserName=name, PolicyArn=arn)
    iam.delete_user(UserName=name)


def admin(words: str, *more: str) -> str:
    """What `nightshift admin` says, in this process: it starts quickly, and there are many commands."""
    done = CliRunner().invoke(app, ["admin", *words.split(), *more], catch_exceptions=False)
    assert done.exit_code == 0, f"{words}: {done.output}"
    return done.stdout.strip()


def test_an_operator_needs_the_stacks_policy_alone(local: Local, person: Session, tmp_path: Path) -> None:
    name = f"team-{uuid.uuid4().hex[:8]}"
    admin(f"accounts create {name}")
    admin(f"accounts quotas {name} --dollars-a-day 20")
    client = local.openai(admin(f"keys create --account {name}"))
    local.upstream.set(held=True)
    file = client.files.create(file=("input.jsonl", batch_file(2)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for words in ("list", f"set {name} --weight 2"):
        admin(f"accounts {words}")
    (key,) = json.loads(admin(f"keys list --account {name} --json"))
    admin(f"keys rotate {key['id']} --account {name}")
    admin(f"keys revoke --account {name} {key['id']}")
    _manage_routes(name, tmp_path)
    for words in (f"list --account {name}", f"show {batch.id}", f"cancel {batch.id}"):
        admin(f"batches {words}")
    local.upstream.set(held=False)
    _give_up(local, accounts.find(name).id, batch.id)
    for words in (f"cost --account {name}", "dead-letters list", f"dead-letters redrive --account {name}", "audit"):
        admin(words)
    admin(f"accounts disable {name}")
    admin(f"accounts enable {name}")
    _reads_no_prompt_and_no_key(local, person, f"files/{accounts.find(name).id}/{file.id}")
    admin(f"accounts disable {name}")
    # Long enough ago that no function remembers its keys, for which the command waits a minute.
    Table("accounts").update(accounts.find(name).id, "account", set={"disabled_at": int(time.time()) - 100})
    admin(f"accounts purge {name} --yes")


def _give_up(local: Local, account_id: str, batch_id: str) -> None:
    """Put a dead letter into its queue. Its receiver does not exist."""
    detail = {
        "id": f"evt_{uuid.uuid4().hex}",
        "account_id": account_id,
        "created_at": int(time.time()),
        "batch": {"id": batch_id, "status": "completed", "callback_url": "https://receiver.invalid/hook"},
    }
    body = json.dumps({"detail": detail, "dead_letter": True})
    local.aws("sqs").send_message(QueueUrl=local.outputs["WebhookDeadLettersUrl"], MessageBody=body)


def _manage_routes(model: str, folder: Path) -> None:
    route = {"model": model, "provider": "p", "base_url": "https://up.test/v1", "upstream_model": "u"}
    file = folder / "routes.yaml"
    file.write_text(yaml.safe_dump([route | {"sku": {"id": "s"}}]))
    admin("routes apply", str(file))
    for words in ("list", "status", f"pause {model}", f"drain {model}", f"resume {model}"):
        admin(f"routes {words}")
    admin(f"routes delete {model} --yes")


def _reads_no_prompt_and_no_key(local: Local, person: Session, object_key: str) -> None:
    assert local.aws("s3").head_object(Bucket=local.bucket(), Key=object_key)["ContentLength"]
    with pytest.raises(ClientError, match="AccessDenied"):
        person.client("s3").get_object(Bucket=local.bucket(), Key=object_key)
    with pytest.raises(ClientError, match="AccessDenied"):
        person.client("secretsmanager").get_secret_value(SecretId=SECRET)
