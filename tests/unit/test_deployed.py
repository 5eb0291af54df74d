"""What each parameter of the stack does: the transformed template, resolved for a set of parameters."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.test_template import FOR_EVERYTHING, as_list, statements
from tests.unit.transformed import ROOT, Json, Stack, deploy, transformed

KEY = "arn:aws:kms:us-east-1:123456789012:key/ours"
TOPIC = "arn:aws:sns:us-east-1:123456789012:ours"
SUBNETS = {"WorkerSubnetIds": "subnet-1,subnet-2", "WorkerSecurityGroupIds": "sg-1"}
DOMAIN = {"DomainName": "batch.example.com", "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/ours"}
# Whatever a parameter can add is there.
EVERYTHING = SUBNETS | DOMAIN
EVERYTHING |= {"ApiConcurrency": "50", "WorkerConcurrency": "100", "AlarmEmail": "ops@example.com"}
EVERYTHING |= {"DailySpendAlarm": "100", "HostedZoneId": "Z1", "KmsKeyArn": KEY}
EVERYTHING |= {"WebAclArn": "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/ours"}
EVERYTHING |= {"PermissionsBoundary": "arn:aws:iam::123456789012:policy/ours"}
ALARM = "AWS::CloudWatch::Alarm"


def with_property(stack: Stack, name: str) -> Json:
    """The value of a property, of all resources that have it."""
    return {key: each["Properties"][name] for key, each in stack.resources.items() if name in each["Properties"]}


def permissions(stack: Stack) -> Iterator[tuple[str, Json]]:
    """Every statement of a role or a policy that allows something."""
    for name, resource in stack.resources.items():
        for statement in statements(resource["Properties"]):
            if statement["Effect"] == "Allow" and "Resource" in statement:
                yield name, statement


def holders(stack: Stack, service: str) -> set[str]:
    """The roles and policies that allow actions of the service."""
    return {
        name
        for name, statement in permissions(stack)
        if any(action.startswith(f"{service}:") for action in as_list(statement["Action"]))
    }


# --- capacity ------------------------------------------------------------------------------------------------------


def test_concurrency_is_reserved_where_it_is_asked_for() -> None:
    def reserved(**parameters: str) -> Json:
        return with_property(deploy(**parameters), "ReservedConcurrentExecutions")

    assert reserved() == {}
    assert reserved(WorkerConcurrency="100") == {"RunChunk": "100"}
    assert reserved(ApiConcurrency="50") == {"Api": "50", "CreateBatch": "50"}


def test_the_stage_is_throttled() -> None:
    (stage,) = deploy(ApiRateLimit="7").of_type("AWS::ApiGateway::Stage").values()
    (settings,) = stage["MethodSettings"]
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")
    assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == ("7", "7")


def another(declared: Json) -> str:
    """A value of the parameter that is not its default."""
    default = str(declared["Default"])
    (value, *_) = [each for each in declared.get("AllowedValues", ["7"]) if str(each) != default]
    return str(value)


@pytest.mark.parametrize("name", ["Api", "CreateBatch"])
def test_a_new_value_reaches_the_alias(name: str) -> None:
    """SAM publishes a version when a property changes, but does not notice a parameter's new value."""

    def environment_and_version(**parameters: str) -> tuple[Any, Any]:
        stack = deploy(**parameters)
        (version,) = [
            each
            for each in stack.of_type("AWS::Lambda::Version").values()
            if each["FunctionName"] == f"nightshift-{name}"
        ]
        return stack.resources[name]["Properties"]["Environment"], version["Description"]

    environment, description = environment_and_version()
    changing = 0
    for parameter, declared in transformed()["Parameters"].items():
        changed, described = environment_and_version(**{parameter: another(declared)})
        changing += changed != environment
        assert changed == environment or described != description, parameter
    assert changing >= 1


# --- network -------------------------------------------------------------------------------------------------------


def test_a_web_acl_guards_the_stage() -> None:
    kind = "AWS::WAFv2::WebACLAssociation"
    assert deploy().of_type(kind) == {}
    (association,) = deploy(WebAclArn="arn:ours").of_type(kind).values()
    assert association["WebACLArn"] == "arn:ours"
    assert association["ResourceArn"].endswith("::/restapis/nightshift-RestApi/stages/nightshift-RestApiv1Stage")


def test_workers_alone_join_subnets() -> None:
    assert with_property(deploy(), "VpcConfig") == {}
    assert holders(deploy(), "ec2") == set()
    stack = deploy(**SUBNETS)
    config = {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert with_property(stack, "VpcConfig") == {"RunChunk": config}
    assert holders(stack, "ec2") == {"RunChunkRole"}
    (allowed,) = [set(each["Action"]) for _, each in permissions(stack) if each.get("Sid") == "JoinSubnets"]
    interfaces = {f"ec2:{verb}NetworkInterface" for verb in ("Create", "Delete")}
    assert allowed == interfaces | {"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"}


def test_a_domain_of_your_own_is_the_base_url() -> None:
    kinds = ("AWS::ApiGateway::DomainName", "AWS::ApiGateway::BasePathMapping", "AWS::Route53::RecordSet")
    stack = deploy()
    assert not any(map(stack.of_type, kinds))
    generated = "https://nightshift-RestApi.execute-api.us-east-1.amazonaws.com/v1"
    assert stack.outputs["BaseUrl"]["Value"] == generated
    stack = deploy(**DOMAIN)
    domain, mapping, record = (list(stack.of_type(kind).values()) for kind in kinds)
    assert [each["RegionalCertificateArn"] for each in domain] == [DOMAIN["CertificateArn"]]
    assert [(each["BasePath"], each["Stage"]) for each in mapping] == [("v1", "nightshift-RestApiv1Stage")]
    assert record == []
    assert stack.outputs["BaseUrl"]["Value"] == "https://batch.example.com/v1"


def test_a_hosted_zone_gets_a_record() -> None:
    kind = "AWS::Route53::RecordSet"
    assert deploy(HostedZoneId="Z1").of_type(kind) == {}
    (record,) = deploy(**DOMAIN, HostedZoneId="Z1").of_type(kind).values()
    assert (record["HostedZoneId"], record["Name"]) == ("Z1", "batch.example.com")
    assert record["AliasTarget"]["DNSName"] == "nightshift-Domain.RegionalDomainName"


# --- what an organisation demands ----------------------------------------------------------------------------------


def test_a_boundary_bounds_every_role() -> None:
    assert with_property(deploy(), "PermissionsBoundary") == {}
    stack = deploy(PermissionsBoundary="arn:ours")
    roles = set(stack.of_type("AWS::IAM::Role"))
    assert len(roles) > 10
    assert with_property(stack, "PermissionsBoundary") == dict.fromkeys(roles, "arn:ours")


# Whatever holds data, and the property of it that names the key.
KEYED = {
    "AWS::DynamoDB::Table": "SSESpecification",
    "AWS::S3::Bucket": "BucketEncryption",
    "AWS::SQS::Queue": "KmsMasterKeyId",
    "AWS::Logs::LogGroup": "KmsKeyId",
    "AWS::SNS::Topic": "KmsMasterKeyId",
}


@pytest.mark.parametrize(("kind", "name"), KEYED.items())
def test_your_key_encrypts_whatever_holds_data(kind: str, name: str) -> None:
    found = deploy(AlarmEmail="ops@example.com", KmsKeyArn=KEY).of_type(kind)
    assert found
    assert [key for key, each in found.items() if KEY not in json.dumps(each[name])] == []


def test_your_key_may_be_used_by_every_role() -> None:
    stack = deploy(KmsKeyArn=KEY)
    assert {statement["Resource"] for _, statement in permissions(stack) if "kms:Decrypt" in statement["Action"]} == {
        KEY
    }
    roles = stack.of_type("AWS::IAM::Role")
    assert [name for name, role in roles.items() if "nightshift-UseKey" not in role["ManagedPolicyArns"]] == []


def test_without_a_key_of_yours_keys_of_aws_encrypt() -> None:
    stack = deploy(AlarmEmail="ops@example.com")
    assert "kms" not in json.dumps(stack.resources).lower()
    queues = stack.of_type("AWS::SQS::Queue")
    assert with_property(stack, "SqsManagedSseEnabled") == dict.fromkeys(queues, True)
    tables = [each["SSESpecification"] for each in stack.of_type("AWS::DynamoDB::Table").values()]
    assert tables == [{"SSEEnabled": True}] * len(tables)


@pytest.mark.parametrize(("given", "prefix"), [("", "my-stack/"), ("team/", "team/")])
def test_only_workers_read_secrets_below_the_prefix(given: str, prefix: str) -> None:
    stack = deploy("my-stack", SecretsPrefix=given)
    assert holders(stack, "secretsmanager") == {"RunChunkRole"}
    (statement,) = [each for _, each in permissions(stack) if each.get("Sid") == "ReadRouteSecret"]
    assert statement["Resource"] == f"arn:aws:secretsmanager:us-east-1:123456789012:secret:{prefix}*"


# --- alarms --------------------------------------------------------------------------------------------------------


def test_spending_is_watched_when_a_limit_is_set() -> None:
    assert "SpendAlarm" not in deploy().of_type(ALARM)
    alarms = deploy(DailySpendAlarm="250").of_type(ALARM)
    assert alarms["SpendAlarm"]["Threshold"] == "250"


@pytest.mark.parametrize(
    ("parameters", "actions"),
    [
        ({"AlarmEmail": "ops@example.com"}, ["nightshift-AlarmTopic"]),
        ({"AlarmTopicArn": TOPIC}, [TOPIC]),
        ({"AlarmEmail": "ops@example.com", "AlarmTopicArn": TOPIC}, [TOPIC]),
        ({}, None),
    ],
)
def test_every_alarm_reaches_who_is_named(parameters: dict[str, str], actions: list[str] | None) -> None:
    stack = deploy(DailySpendAlarm="250", **parameters)
    told = {name: alarm.get("AlarmActions") for name, alarm in stack.of_type(ALARM).items()}
    assert told == dict.fromkeys(told, actions)
    topics = stack.of_type("AWS::SNS::Topic").values()
    subscribers = [each["Subscription"] for each in topics]
    own = actions == ["nightshift-AlarmTopic"]
    assert subscribers == [[{"Protocol": "email", "Endpoint": "ops@example.com"}]] * own


# --- every account, region and partition ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["template.yaml", "statemachines/run_batch.asl.json"])
def test_no_source_names_a_partition(name: str) -> None:
    assert "arn:aws:" not in (ROOT / name).read_text()


@pytest.mark.parametrize("region", ["us-east-1", "cn-north-1"])
def test_nothing_that_sam_adds_names_a_partition(region: str) -> None:
    assert "arn:aws" not in json.dumps(transformed(region))


@pytest.mark.parametrize("parameters", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_only_what_has_no_resource_is_allowed_everywhere(parameters: dict[str, str]) -> None:
    services = {
        action.partition(":")[0]
        for _, statement in permissions(deploy(**parameters))
        for action in as_list(statement["Action"])
        if "*" in as_list(statement["Resource"])
    }
    assert services == ({"ec2"} if parameters else set())
    assert services <= {action.partition(":")[0] for action in FOR_EVERYTHING}


# --- two stacks in one account -------------------------------------------------------------------------------------


# Names inside a resource of the stack's own: of the API, of a function, of its metric's namespace.
INNER = {("AWS::ApiGateway::Stage", "StageName"), ("AWS::Lambda::Alias", "Name"), (ALARM, "MetricName")}
# Nobody may deploy two stacks with one domain: DNS has it once.
INNER |= {(kind, "DomainName") for kind in ("AWS::ApiGateway::DomainName", "AWS::ApiGateway::BasePathMapping")}
INNER |= {("AWS::Route53::RecordSet", "Name")}


def names(stack: Stack) -> set[tuple[str, str]]:
    return {
        (resource["Type"], value)
        for resource in stack.resources.values()
        for name, value in resource["Properties"].items()
        if name.endswith("Name") and (resource["Type"], name) not in INNER
    }


def metrics(stack: Stack) -> set[str]:
    watched = [
        [alarm["Namespace"], alarm["MetricName"], alarm.get("Dimensions")] for alarm in stack.of_type(ALARM).values()
    ]
    filters = stack.of_type("AWS::Logs::MetricFilter").values()
    written = [
        [each["MetricNamespace"], each["MetricName"]] for every in filters for each in every["MetricTransformations"]
    ]
    return {json.dumps(each) for each in watched + written}


def test_two_stacks_share_no_name_and_no_metric() -> None:
    one, other = deploy("one", **EVERYTHING), deploy("other", **EVERYTHING)
    assert len(names(one)) > 5
    assert names(one) & names(other) == set()
    assert len(metrics(one)) > 15
    assert metrics(one) & metrics(other) == set()
    assert not any("Export" in output for output in one.outputs.values())


def test_functions_count_for_their_own_stack() -> None:
    functions = deploy("one").of_type("AWS::Lambda::Function").values()
    services = {function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] for function in functions}
    assert services == {"one"}


def test_the_dashboard_shows_its_own_stack() -> None:
    (dashboard,) = deploy("one").of_type("AWS::CloudWatch::Dashboard").values()
    for widget in json.loads(dashboard["DashboardBody"])["widgets"]:
        shown: dict[str, Any] = widget["properties"]
        others = [shown[name] for name in ("query", "insightRule") if name in shown]
        rows = [*shown.get("metrics", []), *shown.get("alarms", []), *others]
        assert rows
        for row in rows:
            # A point repeats what stands above it.
            assert "one" in json.dumps(row) or row[2:4] == [".", "."], f"{widget['properties']['title']}: {row}"


def test_dollars_by_account_are_read_from_the_log() -> None:
    """tests/integration/test_finalize_batch.py holds the line of the log to these fields."""
    (rule,) = deploy("one").of_type("AWS::CloudWatch::InsightRule").values()
    body = json.loads(rule["RuleBody"])
    assert body["LogGroupNames"] == ["one-LogGroup"]
    assert body["Contribution"] == {
        "Keys": ["$.account_id"],
        "ValueOf": "$.dollars",
        "Filters": [{"Match": "$.message", "In": ["batch ended"]}],
    }
