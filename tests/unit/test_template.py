"""The template and the state machine match the code."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nightshift.batches import store as batches
from nightshift.batches.status import TERMINAL
from nightshift.core import settings
from nightshift.engine import history
from nightshift.webhooks.schedule import MAX_DELAY_SECONDS

from functions.api.app import app as api
from functions.create_batch.app import app as create_batch
from local import emulated

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
SETTINGS = ROOT / "layers/nightshift/nightshift/core/settings.py"
# SQS counts a message's invisibility from when it was received, and refuses more than this.
SQS_MAX_VISIBILITY = 43_200
# An execution that reaches it fails.
MAX_HISTORY_EVENTS = 25_000


class Loader(yaml.SafeLoader):
    """Reads ``!Ref x`` as ``{"Ref": "x"}`` and ``!Sub x`` as ``{"Sub": "x"}``."""


def _tag(loader: Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", _tag)
TEMPLATE: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), Loader)  # noqa: S506 a SafeLoader
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
PARAMETERS: dict[str, dict[str, Any]] = TEMPLATE["Parameters"]
GLOBALS: dict[str, Any] = TEMPLATE["Globals"]["Function"]
MACHINE: dict[str, Any] = json.loads((ROOT / "statemachines/run_batch.asl.json").read_text())


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == kind}


FUNCTIONS = of_type("AWS::Serverless::Function")


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def walk(value: Any) -> Iterator[Any]:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(inner)


def statements(value: Any) -> list[dict[str, Any]]:
    return [one for one in walk(value) if isinstance(one, dict) and "Effect" in one and "Action" in one]


# --- functions -----------------------------------------------------------------------------------------------------


def test_each_folder_is_one_function() -> None:
    named = {"".join(word.capitalize() for word in folder.split("_")): f"functions/{folder}/" for folder in FOLDERS}
    assert {name: properties["CodeUri"] for name, properties in FUNCTIONS.items()} == named


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_handler_exists(folder: str) -> None:
    assert GLOBALS["Handler"] == "app.handler"
    assert not any("Handler" in properties for properties in FUNCTIONS.values())
    tree = ast.parse((ROOT / "functions" / folder / "app.py").read_text())
    assert "handler" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def variables(properties: dict[str, Any]) -> set[str]:
    return set(properties.get("Environment", {}).get("Variables", {}))


def names_that_settings_reads() -> set[str]:
    strings = [
        ast.unparse(node).strip("f").strip("'")
        for node in ast.walk(ast.parse(SETTINGS.read_text()))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    tables = {"ACCOUNTS_TABLE", "BATCHES_TABLE", "FILES_TABLE", "IDEMPOTENCY_KEYS_TABLE", "ROUTES_TABLE"}
    tables |= {"ROUTE_STATE_TABLE"}
    return {name for name in strings if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z]+)*", name)} | tables


def test_the_template_sets_every_setting() -> None:
    given = variables(GLOBALS).union(*map(variables, FUNCTIONS.values()))
    others = ("POWERTOOLS_", "MALLOC_")  # of the library, and of glibc
    local = set(emulated.variables(dict.fromkeys(emulated.GIVEN.values(), "1")))
    assert {name for name in given if not name.startswith(others)} == names_that_settings_reads() - local


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_has_the_settings_it_reads(folder: str) -> None:
    name = "".join(word.capitalize() for word in folder.split("_"))
    given = variables(GLOBALS) | variables(FUNCTIONS[name])
    read = set(re.findall(r"settings\.(\w+)\(", (ROOT / "functions" / folder / "app.py").read_text())) - {"table"}
    getters = {
        node.name: set(re.findall(r"environ(?:\.get\(|\[)'(\w+)'", ast.unparse(node)))
        for node in ast.parse(SETTINGS.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set().union(*(getters[getter] for getter in read)) <= given | set(emulated.GIVEN)


def test_every_parameter_is_used() -> None:
    text = json.dumps([RESOURCES, TEMPLATE["Conditions"]])
    assert [name for name in PARAMETERS if f'"Ref": "{name}"' not in text and f"${{{name}}}" not in text] == []


def test_validation_ends_before_the_timeout() -> None:
    assert PARAMETERS["SyncValidationSeconds"]["MaxValue"] + 4 < GLOBALS["Timeout"] <= 29


def test_snapstart_is_off_by_default() -> None:
    assert PARAMETERS["SnapStart"]["Default"] == "None"
    assert {name for name, properties in FUNCTIONS.items() if "SnapStart" in properties} == {"Api", "CreateBatch"}
    for name in ("Api", "CreateBatch"):
        assert FUNCTIONS[name]["SnapStart"] == {"ApplyOn": {"Ref": "SnapStart"}}
        assert FUNCTIONS[name]["AutoPublishAlias"] == "live"


def test_a_new_layer_reaches_the_alias() -> None:
    assert all(FUNCTIONS[name]["AutoPublishAliasAllProperties"] is True for name in ("Api", "CreateBatch"))
    assert all(layer["PublishLambdaVersion"] is True for layer in of_type("AWS::Serverless::LayerVersion").values())


# --- API -----------------------------------------------------------------------------------------------------------


PATHS: dict[str, dict[str, Any]] = RESOURCES["RestApi"]["Properties"]["DefinitionBody"]["paths"]


def template_routes(function: str) -> set[tuple[str, str]]:
    """What the gateway's own table of paths sends to ``function``."""
    uri = f"lambda:path/2015-03-31/functions/${{{function}.Alias}}/invocations"
    return {
        (method.upper(), path)
        for path, methods in PATHS.items()
        for method, operation in methods.items()
        if operation["x-amazon-apigateway-integration"]["uri"]["Sub"].endswith(uri)
    }


def app_routes(app: Any) -> set[tuple[str, str]]:
    routes = app._static_routes + app._dynamic_routes
    # A model's name may have slashes in it: that one path is a pattern.
    paths = [(route.method, route.path.replace("/models/.+", "/models/<model+>")) for route in routes]
    return {(method, re.sub(r"<(\w+\+?)>", r"{\1}", path)) for method, path in paths}


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
CATCH_ALLS = {(method, path) for method in METHODS for path in ("/", "/{proxy+}")}


def test_what_one_function_does_not_answer_the_other_gets() -> None:
    assert template_routes("CreateBatch") == app_routes(create_batch)
    assert template_routes("Api") >= CATCH_ALLS
    # A path below one of CreateBatch's is in the gateway's table, so that nobody has to know how it falls back.
    beside = {(method, path) for method, path in app_routes(api) if path.startswith("/batches")}
    assert template_routes("Api") - CATCH_ALLS == beside


def test_only_two_functions_are_public() -> None:
    assert {name for name in FUNCTIONS if template_routes(name)} == {"Api", "CreateBatch"}
    permissions = of_type("AWS::Lambda::Permission").values()
    assert sorted(permission["FunctionName"]["Ref"] for permission in permissions) == ["Api.Alias", "CreateBatch.Alias"]
    assert all(permission["SourceArn"]["Sub"].endswith(":${RestApi}/*") for permission in permissions)


@pytest.mark.parametrize(
    "response", RESOURCES["RestApi"]["Properties"]["GatewayResponses"].items(), ids=lambda pair: pair[0]
)
def test_gateway_errors_have_the_envelope(response: tuple[str, dict[str, Any]]) -> None:
    text = response[1]["ResponseTemplates"]["application/json"].replace("$context.error.messageString", '"words"')
    assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


# --- state machine -------------------------------------------------------------------------------------------------


def machines(definition: dict[str, Any] = MACHINE) -> Iterator[dict[str, Any]]:
    """The definition, and those of the maps inside."""
    yield definition
    for state in definition["States"].values():
        if "ItemProcessor" in state:
            yield from machines(state["ItemProcessor"])


def states() -> Iterator[tuple[str, dict[str, Any]]]:
    for machine in machines():
        yield from machine["States"].items()


def successors(state: dict[str, Any]) -> list[str]:
    direct = [state[field] for field in ("Next", "Default") if field in state]
    return direct + [branch["Next"] for branch in [*state.get("Choices", []), *state.get("Catch", [])]]


def test_every_state_exists_and_is_reached() -> None:
    for machine in machines():
        seen, ahead = set[str](), [machine["StartAt"]]
        while ahead:
            name = ahead.pop()
            assert name in machine["States"], f"there is no state {name}"
            if name not in seen:
                seen.add(name)
                ahead += successors(machine["States"][name])
        assert seen == set(machine["States"])


@pytest.mark.parametrize(("name", "state"), list(states()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_state_goes_on_or_ends(name: str, state: dict[str, Any]) -> None:
    ends = state["Type"] in ("Succeed", "Fail") or state.get("End") is True
    assert ends != bool(successors(state))
    if state["Type"] == "Choice":
        assert "Default" in state
    if state["Type"] == "Task":
        assert "States.ALL" in [error for retry in state["Retry"] for error in retry["ErrorEquals"]]
        assert all(retry["JitterStrategy"] == "FULL" for retry in state["Retry"])
    if state["Type"] == "Fail":
        assert state["Error"]
        assert state["Cause"]


def test_a_failed_chunk_fails_no_batch() -> None:
    maps = [state for _, state in states() if state["Type"] == "Map"]
    assert len(maps) == 1
    assert maps[0]["ToleratedFailurePercentage"] == 100
    assert maps[0]["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}


def test_the_map_runs_all_chunks_at_once() -> None:
    """``plan.chunks`` shares a route's concurrency out to all chunks at once."""
    most_workers = -(-10_000 // 256)
    assert MACHINE["States"]["RunChunks"]["MaxConcurrency"] >= most_workers


def events_of(states: dict[str, Any]) -> int:
    """The events that a history gets when each state is passed once, without retries and the Map's children."""
    # A state is entered and exited; a task is scheduled, started and ended besides, and so are a Map and its run.
    more = {"Task": 3, "Map": 6}
    return sum(2 + more.get(state["Type"], 0) for state in states.values())


def test_an_execution_is_left_before_its_history_fills() -> None:
    child = MACHINE["States"]["RunChunks"]["ItemProcessor"]["States"]
    visits = [(child, "RunChunk", "IsChunkDone", "WaitForUpstream")]
    visits += [(MACHINE["States"], "RunOnlyChunk", "IsOnlyChunkDone", "WaitForOnlyChunk")]
    for states, *names in visits:
        assert events_of({name: states[name] for name in names}) == history.VISIT_EVENTS
    assert events_of(MACHINE["States"]) < history.ROUND_EVENTS
    # Each task of a round may have all of its tries when the history is nearly full, which are counted afterwards.
    retries = [sum(retry["MaxAttempts"] for retry in task["Retry"]) for task in tasks()]
    assert history.MAX_EVENTS + 3 * history.ROUND_EVENTS + 3 * max(retries) * 2 < MAX_HISTORY_EVENTS


def test_every_chunk_ends_in_one_shape() -> None:
    child = MACHINE["States"]["RunChunks"]["ItemProcessor"]["States"]
    ends = [state for state in child.values() if state.get("End")]
    assert [set(end.get("Parameters", end.get("Result"))) for end in ends] == [
        {"state.$", "wait_seconds.$"},
        {"state", "wait_seconds"},
    ]


def test_a_failed_task_of_a_chunk_is_caught() -> None:
    for name, state in states():
        if name in ("RunChunk", "RunOnlyChunk", "RunChunks"):
            assert state["Catch"][0]["ErrorEquals"] == ["States.ALL"]


def tasks() -> Iterator[dict[str, Any]]:
    for machine in machines():
        yield from (state for state in machine["States"].values() if state["Type"] == "Task")


def test_throttled_tasks_are_retried_for_hours() -> None:
    assert len(list(tasks())) == 5
    for task in tasks():
        assert task["Retry"][0]["ErrorEquals"] == ["Lambda.TooManyRequestsException"]
        assert task["Retry"][0]["MaxAttempts"] * task["Retry"][0]["MaxDelaySeconds"] / 2 > 6 * 3600


def test_the_map_is_retried_after_any_error() -> None:
    assert MACHINE["States"]["RunChunks"]["Retry"][0]["ErrorEquals"] == ["States.ALL"]


def test_substitutions_match_the_definition() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(MACHINE)))
    given = dict(RESOURCES["RunBatch"]["Properties"]["DefinitionSubstitutions"])
    assert used == set(given)
    assert given.pop("Partition") == {"Ref": "AWS::Partition"}
    assert all({"GetAtt": f"{name.removesuffix('Arn')}.Arn"} == value for name, value in given.items())


def test_an_execution_outlives_the_deadline() -> None:
    longest = settings.completion_window_seconds()
    assert longest + 2 * 900 < MACHINE["TimeoutSeconds"] <= longest + 4 * 3600


def test_the_machine_may_run_its_own_children() -> None:
    properties = RESOURCES["RunBatch"]["Properties"]
    name = properties["Name"]["Sub"]
    allowed = {
        (action, resource["Sub"].partition("${AWS::AccountId}:")[2])
        for statement in statements(RESOURCES["RunBatchRole"]["Properties"]["Policies"])
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
        if action.startswith("states:")
    }
    assert allowed == {
        ("states:StartExecution", f"stateMachine:{name}"),
        ("states:DescribeExecution", f"execution:{name}*"),
        ("states:StopExecution", f"execution:{name}*"),
    }


def test_the_machine_may_invoke_its_functions() -> None:
    (invoke,) = [
        statement
        for statement in statements(RESOURCES["RunBatchRole"]["Properties"]["Policies"])
        if statement["Action"] == "lambda:InvokeFunction"
    ]
    given = RESOURCES["RunBatch"]["Properties"]["DefinitionSubstitutions"]
    assert sorted(arn["GetAtt"] for arn in invoke["Resource"]) == sorted(
        value["GetAtt"] for name, value in given.items() if name.endswith("Arn")
    )


def test_a_failed_execution_is_closed() -> None:
    pattern = FUNCTIONS["CloseAbandoned"]["Events"]["ExecutionAbandoned"]["Properties"]["Pattern"]
    assert pattern["detail"] == {"stateMachineArn": [{"Ref": "RunBatch"}], "status": ["FAILED", "TIMED_OUT", "ABORTED"]}


# --- events and webhooks -------------------------------------------------------------------------------------------


def delays() -> list[int]:
    return settings.webhook_delays()


def test_the_function_gives_up_before_the_queue() -> None:
    tries = len(delays()) + 1
    assert tries == 9
    assert RESOURCES["WebhookQueue"]["Properties"]["RedrivePolicy"] == {
        "deadLetterTargetArn": {"GetAtt": "WebhookDeadLetters.Arn"},
        "maxReceiveCount": 30,
    }
    assert tries * 3 < 30


def test_webhook_tries_span_a_day() -> None:
    assert sum(delays()) >= 24 * 3600
    assert delays() == sorted(delays())


def test_no_delay_is_over_the_limit_of_sqs() -> None:
    """Twelve hours count from the receipt of the message, which is up to a function's timeout ago."""
    assert max(delays()) <= SQS_MAX_VISIBILITY - FUNCTIONS["DeliverWebhook"].get("Timeout", GLOBALS["Timeout"])


def test_a_message_outlives_its_tries() -> None:
    queue, dead = (RESOURCES[name]["Properties"] for name in ("WebhookQueue", "WebhookDeadLetters"))
    # Even if every response has the longest Retry-After that is honoured.
    assert queue["MessageRetentionPeriod"] > len(delays()) * MAX_DELAY_SECONDS + 3600
    # A dead letter's age is counted from when it was first sent.
    assert dead["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]


def test_messages_stay_hidden_for_six_timeouts() -> None:
    timeout = FUNCTIONS["DeliverWebhook"].get("Timeout", GLOBALS["Timeout"])
    assert RESOURCES["WebhookQueue"]["Properties"]["VisibilityTimeout"] >= 6 * timeout


def test_slow_receivers_leave_capacity_free() -> None:
    """Each holds one execution for 15 seconds. An AWS account has a thousand at once, and the API needs some."""
    source = FUNCTIONS["DeliverWebhook"]["Events"]["TerminalEvent"]["Properties"]
    assert source["BatchSize"] == 1
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert 100 <= source["ScalingConfig"]["MaximumConcurrency"] <= 500


def test_every_terminal_status_has_a_webhook() -> None:
    pattern = RESOURCES["TerminalEvents"]["Properties"]["EventPattern"]
    assert set(pattern["detail-type"]) == {f"batch.{status}" for status in TERMINAL}
    assert pattern["source"] == ["nightshift"]


def test_only_the_rule_may_send_to_the_queue() -> None:
    (statement,) = statements(RESOURCES["WebhookQueuePolicy"])
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"GetAtt": "TerminalEvents.Arn"}}}


ALARMS = of_type("AWS::CloudWatch::Alarm")


def test_failures_raise_alarms() -> None:
    names = {alarm["MetricName"] for alarm in ALARMS.values()}
    assert {"5XXError", "ExecutionsFailed", "ExecutionsTimedOut", "FunctionErrors", "Throttles"} <= names
    assert {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage", "IteratorAge"} <= names


def test_every_alarm_is_described() -> None:
    assert all(alarm["AlarmDescription"] for alarm in ALARMS.values())


def unwrapped(text: str) -> str:
    return text.replace("\n", " ")


def test_every_alarm_is_explained() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert [name for name in ALARMS if f"`{name}`" not in text] == []
    always = [name for name in ALARMS if "Condition" not in RESOURCES[name]]
    # Sweep's two metrics are written whether there are batches or not.
    rules = len(of_type("AWS::CloudWatch::InsightRule"))
    at_rest = f"${len(always) / 10 + 2 * 0.30 + rules * 0.50:.2f} a month"
    assert f"{at_rest}: {len(always)} alarms (${len(always) / 10:.2f}), the two metrics of Sweep ($0.60)" in unwrapped(
        text
    )
    assert f"the rule of dollars by account (${rules * 0.50:.2f})" in unwrapped(text)
    assert at_rest in (ROOT / "README.md").read_text()


# The alarm that is raised when Lambda has no room for a function.
THROTTLED = {
    "Api": "ApiErrorsAlarm",  # the gateway answers with 503
    "CreateBatch": "ApiErrorsAlarm",
    "ValidateBatch": "ValidationThrottledAlarm",
    "RunChunk": "WorkersThrottledAlarm",
    "FinalizeBatch": "FinalizingThrottledAlarm",
    "Sweep": "SweepSilentAlarm",
    "CloseAbandoned": "SweepSilentAlarm",  # Sweep does what it could not, and neither has reserved room
    "PublishEvents": "EventsLateAlarm",
    "PurgeFile": "PurgeLateAlarm",
    "DeliverWebhook": "WebhooksThrottledAlarm",
}


def test_throttles_of_every_function_reach_somebody() -> None:
    assert set(THROTTLED) == set(FUNCTIONS)
    for function, name in THROTTLED.items():
        if ALARMS[name]["Namespace"] == "AWS/Lambda":
            assert ALARMS[name]["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": function}}]
    no_room = RESOURCES["RestApi"]["Properties"]["GatewayResponses"]["DEFAULT_5XX"]
    assert no_room["StatusCode"] == 503
    assert ALARMS["ApiErrorsAlarm"]["MetricName"] == "5XXError"
    assert not any("ReservedConcurrentExecutions" in FUNCTIONS[name] for name in ("Sweep", "CloseAbandoned"))


def test_every_parameter_is_explained_in_its_place() -> None:
    """`sam deploy --guided` asks in this order, without a word about any of them."""
    text = (ROOT / "docs/operations.md").read_text()
    table = text.partition("## Parameters")[2].partition("\n\nTo set one")[0]
    explained = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    assert explained == list(PARAMETERS)
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert [name for group in groups for name in group["Parameters"]] == list(PARAMETERS)
    decisions, words = len(groups[0]["Parameters"]), {6: "six", 7: "seven", 8: "eight", 9: "nine"}
    steps = unwrapped((ROOT / "docs/tasks.md").read_text())
    assert f"It asks {len(PARAMETERS)} questions, and the first {words[decisions]} are yours to decide" in steps
    assert f"for the other {len(PARAMETERS) - decisions} is right for almost everyone" in steps


def test_the_dashboard_shows_what_there_is() -> None:
    text = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Sub"]
    widgets = json.loads(re.sub(r"\$\{[\w.:]+\}", "…", text))["widgets"]
    for y in (0, 6, 12):
        row = [widget for widget in widgets if widget["y"] == y]
        ends = [0, *(widget["x"] + widget["width"] for widget in row)]
        assert [widget["x"] for widget in row] == ends[:-1]
        assert ends[-1] == 24
    always = {name for name in ALARMS if "Condition" not in RESOURCES[name]}
    assert set(re.findall(r"\$\{(\w+Alarm)\.Arn\}", text)) == always
    code = "".join(path.read_text() for path in (ROOT / "layers/nightshift/nightshift").rglob("*.py"))
    counted = set(re.findall(r'"([A-Z]\w+)":', code)) | {f"Batches{status.capitalize()}" for status in TERMINAL}
    tables = [widget["properties"]["metrics"] for widget in widgets if "metrics" in widget["properties"]]
    ours = {each[1] for table in tables if table[0][0] == "Nightshift" for each in table}
    assert ours
    assert ours <= counted


def test_the_silence_of_the_sweep_is_an_alarm() -> None:
    assert ALARMS["SweepSilentAlarm"]["TreatMissingData"] == "breaching"


def test_every_dead_letter_queue_has_an_alarm_and_an_output() -> None:
    queues = {name for name in of_type("AWS::SQS::Queue") if name.endswith("DeadLetters")}
    alarmed = {
        dimension["Value"]["GetAtt"].partition(".")[0]
        for alarm in ALARMS.values()
        if alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
        for dimension in alarm["Dimensions"]
    }
    assert queues == alarmed == {name for name in queues if f"{name}Url" in TEMPLATE["Outputs"]}


@pytest.mark.parametrize("function", ["PublishEvents", "PurgeFile"])
def test_a_bad_record_does_not_hold_up_its_stream(function: str) -> None:
    (stream,) = [each["Properties"] for each in FUNCTIONS[function]["Events"].values() if each["Type"] == "DynamoDB"]
    assert stream["BisectBatchOnFunctionError"] is True
    assert stream["MaximumRecordAgeInSeconds"] < 24 * 3600, "the stream forgets its records then"
    assert stream["DestinationConfig"]["OnFailure"]["Destination"] == {"GetAtt": "StreamDeadLetters.Arn"}


# --- state ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", of_type("AWS::DynamoDB::Table"))
def test_tables_are_restorable_and_protected(table: str) -> None:
    properties = RESOURCES[table]["Properties"]
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties["DeletionProtectionEnabled"] == {"If": ["IsProtected", True, False]}
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert RESOURCES[table]["DeletionPolicy"] == "RetainExceptOnCreate"


def test_batches_have_their_index_and_stream() -> None:
    properties = RESOURCES["Batches"]["Properties"]
    assert [index["IndexName"] for index in properties["GlobalSecondaryIndexes"]] == [batches.OPEN_INDEX]
    assert properties["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}


def test_the_bucket_is_private_and_encrypted() -> None:
    (properties,) = of_type("AWS::S3::Bucket").values()
    blocked = properties["PublicAccessBlockConfiguration"]
    assert set(blocked) == {"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"}
    assert all(blocked.values())
    assert properties["BucketEncryption"]
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def test_the_bucket_needs_tls_and_expires_work() -> None:
    (statement,) = statements(RESOURCES["BucketTlsOnly"])
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert "Condition" not in RESOURCES["BucketTlsOnly"]
    rules = RESOURCES["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert any(rule.get("Prefix") == "work/" and rule["ExpirationInDays"] >= 2 for rule in rules)
    assert any("AbortIncompleteMultipartUpload" in rule for rule in rules)


# --- permissions ---------------------------------------------------------------------------------------------------


# AWS knows no resources for these actions.
FOR_EVERYTHING = {
    *("ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
    "ec2:DeleteNetworkInterface",
}


def allowing() -> list[dict[str, Any]]:
    """Every statement of the template that allows something, but who may be a role."""
    return [
        statement
        for statement in statements(RESOURCES)
        if statement["Effect"] == "Allow" and statement["Action"] != "sts:AssumeRole"
    ]


def test_every_function_has_a_role_of_its_own() -> None:
    executing = FUNCTIONS | of_type("AWS::Serverless::StateMachine")
    assert {name: properties["Role"] for name, properties in executing.items()} == {
        name: {"GetAtt": f"{name}Role.Arn"} for name in executing
    }
    # SAM adds AWS's own policies, which are for every resource of an account, to the roles that it makes.
    assert not any("Policies" in properties for properties in executing.values())


def test_no_permission_is_for_everything() -> None:
    assert len(allowing()) > 20
    for statement in allowing():
        for action in as_list(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action), f"{statement['Sid']} allows {action}"
        if FOR_EVERYTHING.issuperset(as_list(statement["Action"])):
            continue
        for resource in as_list(statement["Resource"]):
            name = next(iter(resource.values())) if isinstance(resource, dict) else resource
            name = name[0] if isinstance(name, list) else name
            assert not re.fullmatch(r"[*:]*|arn:.*:\*", name) or "${RunBatch.Name}:*" in name
        assert statement.get("Principal") != "*"


def test_permissions_have_distinct_purposes() -> None:
    for policy in [*of_type("AWS::IAM::Role").values(), *of_type("AWS::IAM::ManagedPolicy").values()]:
        purposes = [statement.get("Sid") for statement in statements(policy)]
        assert len(set(purposes)) == len(purposes)


def test_attached_policies_exist() -> None:
    names = {
        each["Ref"]
        for role in of_type("AWS::IAM::Role").values()
        for each in walk(role["ManagedPolicyArns"])
        if "Ref" in each
    }
    assert names - {"AWS::NoValue"} == set(of_type("AWS::IAM::ManagedPolicy")) - {"Operate"}  # which is for people


def test_every_reference_exists() -> None:
    names = set(RESOURCES) | set(PARAMETERS)
    names |= {"Prefix", "Stage"}  # of a !Sub with values of its own
    for value in walk([RESOURCES, TEMPLATE["Outputs"], GLOBALS]):
        if not isinstance(value, dict) or len(value) != 1:
            continue
        kind, text = next(iter(value.items()))
        text = text[0] if kind == "Sub" and isinstance(text, list) else text
        found = {
            "Ref": lambda text: [text.removesuffix(".Stage").removesuffix(".Alias")],
            "GetAtt": lambda text: [text.partition(".")[0]],
            "Sub": lambda text: [name.partition(".")[0] for name in re.findall(r"\$\{([\w.:]+)\}", text)],
        }.get(kind, lambda _: [])(text)
        assert [name for name in found if name not in names and not name.startswith("AWS::")] == []


def test_runtime_and_layers_agree() -> None:
    for layer in of_type("AWS::Serverless::LayerVersion").values():
        assert layer["CompatibleRuntimes"] == [GLOBALS["Runtime"]]
        assert layer["CompatibleArchitectures"] == GLOBALS["Architectures"]
