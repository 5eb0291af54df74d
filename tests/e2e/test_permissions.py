"""The roles as they are deployed, with every ARN in place, read by Parliament, a linter of IAM policies."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

from tests.e2e.conftest import Local

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
        arn = attached["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        yield iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def actions(finding: Any) -> set[str]:
    return {each if isinstance(each, str) else each["action"] for each in finding.detail}


def test_the_linter_finds_nothing_wrong_with_any_role(local: Local) -> None:
    iam = local.aws("iam")
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    assert len(roles) == 11  # one for each function, and the state machine's
    for role in roles:
        for document in policies(iam, role):
            found = parliament.analyze_policy_string(json.dumps(document)).findings
            assert [str(each) for each in found if not actions(each) <= ACCEPTED] == [], role
