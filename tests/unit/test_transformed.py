"""What SAM makes of the template: it adds resources and permissions of its own, which no one reads in the source."""

from typing import Any

import pytest

from tests.unit.test_template import FOR_EVERYTHING, as_list, statements, walk
from tests.unit.transformed import transformed

# Nothing of these costs anything while nobody uses the stack.
FREE = {
    *("AWS::ApiGateway::BasePathMapping", "AWS::ApiGateway::Deployment", "AWS::ApiGateway::DomainName"),
    *("AWS::ApiGateway::RestApi", "AWS::ApiGateway::Stage", "AWS::WAFv2::WebACLAssociation"),
    *("AWS::Lambda::Alias", "AWS::Lambda::EventSourceMapping", "AWS::Lambda::Function", "AWS::Lambda::LayerVersion"),
    *("AWS::Lambda::EventInvokeConfig", "AWS::Lambda::Permission", "AWS::Lambda::Version"),
    "AWS::StepFunctions::StateMachine",
    *("AWS::IAM::ManagedPolicy", "AWS::IAM::Role", "AWS::Route53::RecordSet"),
    *("AWS::Events::EventBus", "AWS::Events::Rule", "AWS::SNS::Topic", "AWS::SQS::Queue", "AWS::SQS::QueuePolicy"),
    *("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::S3::BucketPolicy"),
    *("AWS::Logs::LogGroup", "AWS::Logs::MetricFilter"),
}
# What does is in docs/operations.md, "What it costs".
COSTS_AT_REST = {"AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard", "AWS::CloudWatch::InsightRule"}


def resources() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = transformed()["Resources"]
    return found


def kinds() -> set[str]:
    return {resource["Type"] for resource in resources().values()}


def test_nothing_costs_at_rest_but_what_the_docs_say() -> None:
    assert kinds() - FREE == COSTS_AT_REST


def test_the_api_has_one_stage() -> None:
    stages = [each for each in resources().values() if each["Type"] == "AWS::ApiGateway::Stage"]
    assert [stage["Properties"]["StageName"] for stage in stages] == ["v1"]


def test_permissions_to_call_do_not_grow_with_the_api() -> None:
    """An alias's policy has room for 20 kB, and SAM writes a statement of 380 bytes for each path and method."""
    callers = [
        each["Properties"]["Principal"] for each in resources().values() if each["Type"] == "AWS::Lambda::Permission"
    ]
    assert sorted(callers) == ["apigateway.amazonaws.com"] * 2 + ["events.amazonaws.com"] * 3


@pytest.mark.parametrize("name", [name for name, each in resources().items() if each["Type"].startswith("AWS::IAM::")])
def test_no_role_may_use_everything(name: str) -> None:
    properties = resources()[name]["Properties"]
    for policy in walk(properties.get("ManagedPolicyArns", [])):
        assert not isinstance(policy, str) or ":policy/" not in policy, "a policy of AWS is for every resource"
    for statement in statements(properties):
        assert not any("*" in action for action in as_list(statement["Action"]))
        if "*" in as_list(statement.get("Resource", [])):
            assert FOR_EVERYTHING.issuperset(as_list(statement["Action"]))


def test_nothing_is_traced() -> None:
    """Said, and not left out: what CloudFormation is not told stays as an older version has set it (ADR 21)."""
    of = {kind: [each["Properties"] for each in resources().values() if each["Type"] == kind] for kind in kinds()}
    assert {each["TracingConfig"]["Mode"] for each in of["AWS::Lambda::Function"]} == {"PassThrough"}
    assert [each["TracingEnabled"] for each in of["AWS::ApiGateway::Stage"]] == [False]
    assert [each["TracingConfiguration"] for each in of["AWS::StepFunctions::StateMachine"]] == [{"Enabled": False}]
