"""What `nightshift admin doctor` says of a deployment."""

import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pytest
import yaml
from nightshift.routes import form
from nightshift.routes import store as routes
from nightshift.routes.health import trouble_of
from nightshift_cli.admin import checks, trials
from nightshift_cli.admin.checks import Finding
from nightshift_cli.admin.doctor import _looked
from nightshift_cli.admin.stack import Deployment
from nightshift_cli.admin.tenant import Tenant, UnexpectedAnswerError
from nightshift_cli.admin.trials import _route_verdict

from tests.unit.cli.test_admin import OUTPUTS, ROUTE, admin, stack  # noqa: F401 (a fixture)

DEPLOYMENT = Deployment("nightshift", OUTPUTS, "https://api.test/v1")


@pytest.fixture(autouse=True)
def region(monkeypatch: pytest.MonkeyPatch, stack: None) -> None:  # noqa: F811
    """What a command sets before it checks anything."""
    admin("routes", "list")
    assert boto3.client("sns").meta.region_name == "eu-west-1"


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer))


def apply(**fields: Any) -> None:
    routes.apply([form.parse(yaml.safe_load(ROUTE) | fields)])


def states(found: Iterator[Finding]) -> list[str]:
    return [one.state for one in found]


# --- the stack ------------------------------------------------------------------------------------------------------


class Lambda:
    """An account with two functions, and room for ``free`` invocations."""

    def __init__(
        self, free: int = 1000, reserved: int | None = None, update: str = "Successful", error: str | None = None
    ) -> None:
        self._free, self._reserved, self._update, self._error = free, reserved, update, error
        self.invoked: dict[str, Any] = {}

    def get_account_settings(self) -> dict[str, Any]:
        return {"AccountLimit": {"UnreservedConcurrentExecutions": self._free}}

    def get_function_concurrency(self, **_: str) -> dict[str, Any]:
        return {"ReservedConcurrentExecutions": self._reserved} if self._reserved else {}

    def get_function_configuration(self, **_: str) -> dict[str, Any]:
        return {"State": "Active", "LastUpdateStatus": self._update, "LastUpdateStatusReason": "no room"}

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - as in boto3
        self.invoked[FunctionName] = json.loads(Payload)
        failed = {"FunctionError": "Unhandled"} if self._error else {}
        return failed | {"Payload": io.BytesIO((self._error or "{}").encode())}


def an_account(monkeypatch: pytest.MonkeyPatch, **about: Any) -> Lambda:
    found = Lambda(**about)
    monkeypatch.setattr(checks, "aws_client", lambda _: found)
    names = {"RunChunk": "stack-RunChunk-1", "Sweep": "stack-Sweep-1", "PurgeFile": "stack-PurgeFile-1"}
    monkeypatch.setattr(checks, "functions_of", lambda _: names)
    return found


@pytest.mark.parametrize(
    ("free", "reserved", "state"),
    [
        (10, None, "warn"),
        (59, None, "warn"),
        (60, None, "ok"),
        (1000, 9, "warn"),
        (1000, 10, "ok"),
        (49, 10, "warn"),
    ],
)
def test_concurrency_is_compared_with_what_the_routes_ask_for(
    monkeypatch: pytest.MonkeyPatch, free: int, reserved: int | None, state: str
) -> None:
    apply(max_concurrency=10_000)
    an_account(monkeypatch, free=free, reserved=reserved)
    (found,) = checks.check_concurrency(DEPLOYMENT)
    assert found.state == state
    assert "ask for 10" in found.words
    assert ("WorkerConcurrency" in found.words) == (reserved == 9)


def test_functions_that_no_trial_reaches_are_invoked(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = an_account(monkeypatch)
    assert states(checks.check_functions(DEPLOYMENT)) == ["ok"]
    assert functions.invoked == {"stack-PurgeFile-1": {"Records": []}}


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"error": '{"errorType": "Runtime.ImportModuleError"}'}, 'PurgeFile: {"errorType": "Runtime'),
        ({"update": "Failed"}, "RunChunk: Active Failed (no room); Sweep: Active Failed (no room)"),
    ],
)
def test_a_function_that_does_not_start_is_named(
    monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], words: str
) -> None:
    an_account(monkeypatch, **about)
    (found,) = checks.check_functions(DEPLOYMENT)
    assert (found.state, words in found.words) == ("fail", True)


def alarm(**fields: Any) -> None:
    given = {"Namespace": "n", "MetricName": "m", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0}
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="nightshift-ApiErrorsAlarm-1",
        Statistic="Sum",
        ComparisonOperator="GreaterThanThreshold",
        **given | fields,
    )


def test_alarms_without_a_topic_reach_nobody() -> None:
    alarm()
    (found,) = checks.check_alarms(DEPLOYMENT)
    assert (found.state, "AlarmEmail" in found.words) == ("warn", True)


def test_a_subscription_counts_once_it_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    sns = boto3.client("sns")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    alarm(AlarmActions=[topic])
    assert states(checks.check_alarms(DEPLOYMENT)) == ["warn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="operator@example.com")
    assert states(checks.check_alarms(DEPLOYMENT)) == ["ok"]


def test_an_alarm_that_is_raised_is_named() -> None:
    alarm()
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.set_alarm_state(AlarmName="nightshift-ApiErrorsAlarm-1", StateValue="ALARM", StateReason="a test")
    *_, last = checks.check_alarms(DEPLOYMENT)
    assert "nightshift-ApiErrorsAlarm-1" in last.words


def test_dead_letters_are_counted() -> None:
    queues = dict.fromkeys(checks._QUEUES, OUTPUTS["WebhookDeadLettersUrl"])
    deployment = Deployment("nightshift", queues, "")
    assert states(checks.check_dead_letters(deployment)) == ["ok"]
    boto3.client("sqs").send_message(QueueUrl=OUTPUTS["WebhookDeadLettersUrl"], MessageBody="{}")
    (found,) = checks.check_dead_letters(deployment)
    assert "WebhookDeadLetters has 1" in found.words
    boto3.client("sqs").receive_message(QueueUrl=OUTPUTS["WebhookDeadLettersUrl"])
    (found,) = checks.check_dead_letters(deployment)
    assert "WebhookDeadLetters has 1" in found.words, "one that is read just now is still there"


# --- the API --------------------------------------------------------------------------------------------------------


def api(request: httpx.Request) -> httpx.Response:
    date = {"Date": "Fri, 27 Nov 2026 12:00:00 GMT"}
    return httpx.Response(200 if request.url.path.endswith("openapi.json") else 401, headers=date)


def test_the_api_answers_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_780_800.0)
    assert states(checks.check_api(DEPLOYMENT, answering(api))) == ["ok", "ok"]


def test_a_wrong_clock_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_780_800.0 + 300)
    *_, clock = checks.check_api(DEPLOYMENT, answering(api))
    assert (clock.state, "300 s off" in clock.words) == ("warn", True)


@pytest.mark.parametrize("status", [200, 404])
def test_an_api_that_is_another_one_is_found(status: int) -> None:
    (found,) = checks.check_api(DEPLOYMENT, answering(lambda _: httpx.Response(status)))
    assert found.state == "fail"


# --- names ----------------------------------------------------------------------------------------------------------


def unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)


class Domains:
    """Amazon API Gateway with the domain ``api.test``, or without."""

    class exceptions:  # noqa: N801 - as in boto3
        NotFoundException = KeyError

    def __init__(self, **targets: str) -> None:
        self._targets = targets

    def get_domain_name(self, domainName: str) -> dict[str, str]:  # noqa: N803 - as in boto3
        return {"regionalDomainName": self._targets[domainName.partition(".")[0]]}


@pytest.mark.parametrize(
    ("domains", "words"),
    [(Domains(), "this machine's DNS"), (Domains(api="d-1.test"), "CNAME record of it to d-1.test")],
)
def test_the_apis_name_needs_an_address(monkeypatch: pytest.MonkeyPatch, domains: Domains, words: str) -> None:
    monkeypatch.setattr(checks, "aws_client", lambda _: domains)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [()])
    assert states(checks.check_dns(DEPLOYMENT)) == ["ok"]
    unknown_names(monkeypatch)
    (found,) = checks.check_dns(DEPLOYMENT)
    assert (found.state, words in found.words) == ("fail", True)


# --- routes ---------------------------------------------------------------------------------------------------------

PRICED = {"id": "s", "input_per_million": 1, "output_per_million": 1}


def test_without_routes_there_is_nothing_to_batch() -> None:
    assert states(checks.check_routes(answering(api))) == ["fail"]


@pytest.mark.parametrize(
    ("status", "fields", "state"),
    [
        (200, {"sku": PRICED}, "ok"),
        (404, {"sku": PRICED}, "ok"),
        (200, {}, "warn"),
        (401, {"sku": PRICED}, "fail"),
        (403, {"sku": PRICED}, "fail"),
        (503, {"sku": PRICED}, "warn"),
    ],
)
def test_a_route_is_asked(status: int, fields: dict[str, Any], state: str) -> None:
    apply(**fields)
    assert states(checks.check_routes(answering(lambda _: httpx.Response(status)))) == [state]


def test_a_routes_secret_is_read_and_sent() -> None:
    apply(sku=PRICED, auth={"secret": "nightshift/p", "header": "api-key", "scheme": ""})
    sent: list[str | None] = []

    def upstream(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("api-key"))
        return httpx.Response(200)

    (missing,) = checks.check_routes(answering(upstream))
    assert (missing.state, "Secrets Manager" in missing.words, sent) == ("fail", True, [])
    boto3.client("secretsmanager").create_secret(Name="nightshift/p", SecretString="the-key")
    (found,) = checks.check_routes(answering(upstream))
    assert (found.state, sent) == ("ok", ["the-key"])
    assert "the-key" not in found.words


def test_a_route_that_cannot_be_reached_from_here_may_be_private(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(sku=PRICED)
    unknown_names(monkeypatch)

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    (found,) = checks.check_routes(answering(refuse))
    assert (found.state, "no address in DNS" in found.words) == ("warn", True)


def test_a_model_without_routes_is_named() -> None:
    apply(sku=PRICED)
    (found,) = checks.check_routes(answering(api), "no-such-model")
    assert "no-such-model" in found.words


def test_an_answer_that_proves_little_says_so() -> None:
    apply(sku=PRICED)
    (found,) = checks.check_routes(answering(lambda _: httpx.Response(404)))
    assert (found.state, "404 to /models" in found.words) == ("ok", True)


# --- the trials -----------------------------------------------------------------------------------------------------


def tenant(answer: Callable[[httpx.Request], httpx.Response]) -> Tenant:
    made = Tenant(DEPLOYMENT, answering(answer))
    made.headers = {}
    return made


def test_what_is_refused_for_the_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    answers: list[httpx.Response | Exception] = [httpx.Response(503), httpx.ReadTimeout("slow"), httpx.Response(429)]

    def answer(_: httpx.Request) -> httpx.Response:
        given = answers.pop(0) if answers else httpx.Response(200, json={"id": "a"})
        if isinstance(given, Exception):
            raise given
        return given

    assert tenant(answer).call("GET", "/batches") == {"id": "a"}
    with pytest.raises(UnexpectedAnswerError, match="503"):
        tenant(lambda _: httpx.Response(503)).call("GET", "/batches")
    with pytest.raises(UnexpectedAnswerError, match="not answered by Nightshift"):
        tenant(lambda _: httpx.Response(200, text="<html>")).call("GET", "/batches")


def test_a_trial_that_breaks_off_leaves_no_batch_and_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(sku=PRICED)
    (route,) = routes.all_routes()
    ended: list[str] = []

    def cancel(_: str, batch_id: str) -> Any:
        ended.append(batch_id)
        return SimpleNamespace(status="cancelled")

    monkeypatch.setattr("nightshift.batches.cancel.cancel", cancel)
    one = tenant(lambda request: httpx.Response(200, json={"id": request.url.path.rpartition("/")[2]}))
    one.account_id = "acct_1"

    def break_off() -> None:
        with one.only_route(route) as trial:
            one.begin(trial.model, "/v1/chat/completions", [{}], None)
            assert len(routes.all_routes()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert ended == ["batches"]
    assert routes.all_routes() == [route]


class Stacks:
    """CloudFormation with a stack of that age."""

    def __init__(self, age: int, protection: str) -> None:
        made = datetime.now(UTC) - timedelta(seconds=age)
        parameters = [{"ParameterKey": "DeletionProtection", "ParameterValue": protection}]
        self._stack = {"StackStatus": "CREATE_COMPLETE", "CreationTime": made, "Parameters": parameters}

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        return {"Stacks": [self._stack]}


@pytest.mark.parametrize(
    ("age", "protection", "expected"), [(60, "true", ["ok", "warn"]), (60, "false", ["ok"]), (1000, "true", ["ok"])]
)
def test_a_new_bucket_with_versions_needs_a_while(
    monkeypatch: pytest.MonkeyPatch, age: int, protection: str, expected: list[str]
) -> None:
    monkeypatch.setattr(checks, "aws_client", lambda _: Stacks(age, protection))
    assert states(checks.check_stack(DEPLOYMENT)) == expected


def test_a_name_that_leads_to_another_stack_is_found() -> None:
    with pytest.raises(UnexpectedAnswerError, match="another stack"):
        tenant(lambda _: httpx.Response(401)).call("GET", "/batches")


@pytest.mark.parametrize(
    ("ran", "status", "lines", "state", "words"),
    [
        (True, "cancelled", 2, "ok", "two lines out"),
        (True, "cancelled", 1, "fail", "1 came out"),
        (True, "failed", 0, "fail", "Map: States.Runtime: no plan"),
        (False, "cancelled", 2, "fail", "Map: States.Runtime: no plan"),
        (None, "cancelled", 2, "fail", "Map: States.Runtime: no plan"),
    ],
)
def test_the_engine_is_judged_by_what_came_out(
    monkeypatch: pytest.MonkeyPatch, ran: bool | None, status: str, lines: int, state: str, words: str
) -> None:
    class History:
        def get_execution_history(self, **_: Any) -> dict[str, Any]:
            failure = {"error": "States.Runtime", "cause": "no plan"}
            return {"events": [{"type": "Exit"}, {"type": "Map", "mapRunFailedEventDetails": failure}]}

    monkeypatch.setattr(trials, "aws_client", lambda _: History())
    batch = {"id": "batch_1", "status": status, "error_file_id": "file-1"}
    caller = tenant(lambda _: httpx.Response(200, text="{}\n" * lines))
    found = trials._engine_verdict(caller, batch, ran)
    assert (found.state, words in found.words) == (state, True)


# --- the verdicts ---------------------------------------------------------------------------------------------------


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("a", "ok", "")
        raise KeyError("upload_url")

    *_, last = _looked("storage", broken)
    assert (last.state, last.words) == ("fail", "The check itself failed: KeyError: 'upload_url'")


def test_a_check_that_fails_is_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("a", "ok", "")
        boto3.client("sqs").get_queue_url(QueueName="none")

    first, second = _looked("queue", broken)
    assert (first.state, second.check, second.state) == ("ok", "queue", "fail")
    assert second.words.startswith("AWS: ")


@pytest.mark.parametrize(
    ("status", "completed", "state", "words"),
    [
        ("completed", 1, "ok", "mode realtime"),
        ("completed", 0, "fail", "upstream_model"),
        ("failed", 0, "fail", "no room"),
        ("cancelled", 0, "fail", "no room"),
    ],
)
def test_the_end_of_a_trial_is_told(status: str, completed: int, state: str, words: str) -> None:
    route = form.parse(yaml.safe_load(ROUTE))
    batch = {
        "status": status,
        "request_counts": {"completed": completed},
        "errors": {"data": [{"message": "no room"}]} if status != "completed" else None,
    }
    found = _route_verdict(route, "/v1/chat/completions", batch, None)
    assert (found.state, words in found.words) == (state, True)


def test_a_trial_that_failed_has_the_providers_words() -> None:
    route = form.parse(yaml.safe_load(ROUTE))
    batch = {"status": "cancelled", "request_counts": None, "errors": None}
    found = _route_verdict(route, "/v1/chat/completions", batch, trouble_of(401, "bad key"))
    assert (found.state, "bad key" in found.words) == ("fail", True)


def test_a_trial_without_hope_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"id": "b", "status": "cancelled"})

    tenant(answer).ended({"id": "b", "status": "in_progress"}, time.time() + 600, lambda: True)
    assert asked == ["/v1/batches/b/cancel"]
