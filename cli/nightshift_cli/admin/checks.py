"""What `nightshift admin doctor` looks at without spending anything. Each check tells what it found, and what to do."""

import json
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from nightshift_cli.admin.stack import Deployment
from nightshift_cli.show import moment

if TYPE_CHECKING:
    import httpx
    from nightshift.routes.route import Route

State = Literal["ok", "warn", "fail"]

# For the API, webhooks and the ends of batches, beside the workers.
_SPARE_CONCURRENCY = 50
_MAX_SKEW_SECONDS = 60
# Of what a function says when it fails.
_MAX_WORDS = 300
# Events with which a function that no trial leads to has nothing to do. Sweep might work for minutes; it runs by itself
# every five, and its silence raises an alarm.
_IDLE_EVENTS: dict[str, dict[str, object]] = {
    "CloseAbandoned": {"detail": {"name": "doctor"}},
    "DeliverWebhook": {"Records": []},
    "PublishEvents": {"Records": []},
    "PurgeFile": {"Records": []},
}
# S3's words: after versioning is enabled, for so long a new object may be answered with 404.
_VERSIONING_SECONDS = 15 * 60
_QUEUES = ("WebhookDeadLettersUrl", "EventDeadLettersUrl", "StreamDeadLettersUrl")
# What is in a queue: the second counts those that somebody reads just now.
_COUNTS: "tuple[Literal['ApproximateNumberOfMessages'], Literal['ApproximateNumberOfMessagesNotVisible']]" = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found. ``words`` say what to do, unless all is well."""

    check: str
    state: State
    words: str


def aws_client(service: str) -> Any:
    import boto3

    return boto3.client(service)  # type: ignore[call-overload]


# --- the stack ------------------------------------------------------------------------------------------------------


def check_stack(deployment: Deployment) -> Iterator[Finding]:
    """The deployment went through."""
    found = aws_client("cloudformation").describe_stacks(StackName=deployment.stack_name)["Stacks"][0]
    status, parameters = found["StackStatus"], found.get("Parameters", [])
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        yield Finding("stack", "fail", f"It is {status}. Its events in CloudFormation say why; deploy again.")
        return
    yield Finding("stack", "ok", status)
    has_versions = {"ParameterKey": "DeletionProtection", "ParameterValue": "true"} in parameters
    ready_at = int(found["CreationTime"].timestamp()) + _VERSIONING_SECONDS
    if has_versions and time.time() < ready_at:
        words = (
            f"The bucket has just got versioning, and S3 may not find new objects: begin batches at {moment(ready_at)}."
        )
        yield Finding("versioning", "warn", words)


def check_functions(deployment: Deployment) -> Iterator[Finding]:
    """Every function runs what was deployed, and those that no trial reaches start: their packages can be imported."""
    names = functions_of(deployment)
    wrong = [f"{logical_id}: {fault}" for logical_id, name in names.items() if (fault := _fault(logical_id, name))]
    if wrong:
        yield Finding("functions", "fail", "; ".join(wrong))
    else:
        yield Finding("functions", "ok", f"{len(names)} are active.")


def _fault(logical_id: str, name: str) -> str | None:
    """What is wrong with the function, in words; None if nothing is."""
    functions = aws_client("lambda")
    found = functions.get_function_configuration(FunctionName=name)
    states = (found.get("State", "Active"), found.get("LastUpdateStatus", "Successful"))
    if states != ("Active", "Successful"):
        return f"{' '.join(states)} ({found.get('LastUpdateStatusReason') or found.get('StateReason')})"
    if logical_id not in _IDLE_EVENTS:
        return None
    answer = functions.invoke(FunctionName=name, Payload=json.dumps(_IDLE_EVENTS[logical_id]).encode())
    return answer["Payload"].read(_MAX_WORDS).decode(errors="replace") if "FunctionError" in answer else None


def functions_of(deployment: Deployment) -> dict[str, str]:
    """The name of each function of the stack, by its logical id."""
    pages = aws_client("cloudformation").get_paginator("list_stack_resources")
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for page in pages.paginate(StackName=deployment.stack_name)
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::Lambda::Function"
    }


def check_concurrency(deployment: Deployment) -> Iterator[Finding]:
    """As many workers may run at once as the routes ask for, and leave room for the API."""
    from nightshift.input.layout import WORKER_CONCURRENCY
    from nightshift.routes import store as routes

    functions = aws_client("lambda")
    free = functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    worker = functions_of(deployment)["RunChunk"]
    reserved = functions.get_function_concurrency(FunctionName=worker).get("ReservedConcurrentExecutions")
    workers = sum(math.ceil(route.max_concurrency / WORKER_CONCURRENCY) for route in routes.all_routes())
    needed = _SPARE_CONCURRENCY if reserved else workers + _SPARE_CONCURRENCY
    if reserved and reserved < workers:
        words = f"WorkerConcurrency lets {reserved} workers run; the routes ask for {workers}. Raise it, or lower "
        yield Finding("concurrency", "warn", words + "max_concurrency.")
    elif free < needed:
        words = (
            f"Lambda runs {free} at once that nobody reserves; {needed} are needed: the routes ask for {workers} "
            f"workers{' (reserved)' if reserved else ''} beside the API and webhooks. Ask AWS for a quota of "
            f"{max(1000, needed + (reserved or 0))} concurrent executions, or lower max_concurrency."
        )
        yield Finding("concurrency", "warn", words)
    else:
        yield Finding("concurrency", "ok", f"{reserved or free} at once; the routes ask for {workers} workers.")


def check_alarms(deployment: Deployment) -> Iterator[Finding]:
    """Alarms reach somebody, and none is raised."""
    pages = aws_client("cloudwatch").get_paginator("describe_alarms")
    found = [
        alarm for page in pages.paginate(AlarmNamePrefix=f"{deployment.stack_name}-") for alarm in page["MetricAlarms"]
    ]
    topics = {action for alarm in found for action in alarm.get("AlarmActions", []) if ":sns:" in action}
    if not topics:
        yield Finding("alarms", "warn", "They reach nobody. Deploy with AlarmEmail or AlarmTopicArn.")
    for topic in sorted(topics):
        yield _subscriptions(topic)
    raised = [alarm["AlarmName"] for alarm in found if alarm.get("StateValue") == "ALARM"]
    if raised:
        yield Finding("alarms", "warn", f"Raised now: {', '.join(raised)}. docs/operations.md explains each.")


def _subscriptions(topic: str) -> Finding:
    arns = [
        found["SubscriptionArn"]
        for page in aws_client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
        for found in page["Subscriptions"]
    ]
    confirmed = [arn for arn in arns if arn.startswith("arn:")]
    if confirmed:
        return Finding("alarms", "ok", f"{topic} has {len(confirmed)} subscribers.")
    words = "nobody has confirmed: open AWS's e-mail" if arns else "nobody subscribes"
    return Finding("alarms", "warn", f"{topic}: {words}.")


def check_dead_letters(deployment: Deployment) -> Iterator[Finding]:
    """No queue of what could not be delivered or processed has anything in it."""
    waiting = {}
    for output in _QUEUES:
        found = aws_client("sqs").get_queue_attributes(
            QueueUrl=deployment.outputs[output], AttributeNames=list(_COUNTS)
        )
        waiting[output.removesuffix("Url")] = sum(int(found["Attributes"][count]) for count in _COUNTS)
    full = [f"{name} has {count}" for name, count in waiting.items() if count]
    if full:
        yield Finding("dead letters", "warn", f"{', '.join(full)}. docs/operations.md says what to do.")
    else:
        yield Finding("dead letters", "ok", "There are none.")


# --- the API --------------------------------------------------------------------------------------------------------


def check_dns(deployment: Deployment) -> Iterator[Finding]:
    """The API's name has an address."""
    host = urlsplit(deployment.base_url).hostname or ""
    if _has_address(host):
        yield Finding("dns", "ok", f"{host} has an address.")
        return
    apigateway = aws_client("apigateway")
    try:
        target = apigateway.get_domain_name(domainName=host)["regionalDomainName"]
    except apigateway.exceptions.NotFoundException:
        yield Finding("dns", "fail", f"{host} has no address as seen from here. Check this machine's DNS.")
    else:
        words = f"{host} has no address. Make a CNAME record of it to {target}, or deploy with HostedZoneId."
        yield Finding("dns", "fail", words)


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def check_api(deployment: Deployment, http: "httpx.Client") -> Iterator[Finding]:
    """The API answers under its name, refuses who has no key, and its clock is this machine's."""
    answer = http.get(f"{deployment.base_url}/openapi.json")
    if answer.status_code != 200:
        yield Finding("api", "fail", f"{deployment.base_url} answers {answer.status_code}. Check DomainName.")
        return
    refused = http.get(f"{deployment.base_url}/batches", headers={"Authorization": "Bearer none"})
    if refused.status_code != 401:
        yield Finding("api", "fail", f"A call without a key got {refused.status_code} and not 401.")
        return
    yield Finding("api", "ok", f"{deployment.base_url} answers.")
    told = answer.headers.get("Date")
    skew = abs(parsedate_to_datetime(told).timestamp() - time.time()) if told else 0.0
    if skew > _MAX_SKEW_SECONDS:
        yield Finding("clock", "warn", f"This machine's clock is {skew:.0f} s off, and AWS may refuse its calls.")
    else:
        yield Finding("clock", "ok", f"Within {_MAX_SKEW_SECONDS} s of the API's.")


# --- the routes -----------------------------------------------------------------------------------------------------


def routes_of(model: str | None) -> "list[Route]":
    """The routes of a model, or all of them."""
    from nightshift.routes import store as routes

    return routes.for_model(model) if model else routes.all_routes()


def check_routes(http: "httpx.Client", model: str | None = None) -> Iterator[Finding]:
    """Each route has its key, and its provider answers and accepts it, as seen from here."""
    found = routes_of(model)
    if not found and model:
        yield Finding("routes", "fail", f"There is none of the model {model}.")
    elif not found:
        yield Finding("routes", "fail", "There are none. Apply some: nightshift admin routes apply FILE.yaml")
    for route in found:
        yield _route(route, http)


_NO_PRICE = (
    "It answers, but has no price, so spend limits do not bind its lines. Give its sku input_per_million and "
    "output_per_million, and apply it again."
)


def name_of(route: "Route") -> str:
    return f"route {route.model}, {route.provider}, {route.sku.id}"


def _route(route: "Route", http: "httpx.Client") -> Finding:
    import httpx
    from nightshift.upstream.client import NoApiKeyError, api_key

    headers = dict(route.headers)
    try:
        key = api_key(route)
    except NoApiKeyError as error:
        return Finding(name_of(route), "fail", f"{error} Create it in Secrets Manager, with the stack's prefix.")
    if key and route.credentials:
        headers[route.credentials.header] = route.credentials.value(key)
    try:
        answer = http.get(route.url_of("/models"), headers=headers)
    except httpx.HTTPError as error:
        reason = type(error).__name__ if _has_address(urlsplit(route.base_url).hostname or "") else "no address in DNS"
        words = f"{route.base_url} cannot be reached from here ({reason}); the workers may be elsewhere."
        return Finding(name_of(route), "warn", words)
    if answer.status_code in (401, 402, 403):
        words = f"{route.base_url} refuses the key: {answer.status_code}. Replace the secret's value."
        return Finding(name_of(route), "fail", words)
    if answer.status_code >= 500:
        return Finding(name_of(route), "warn", f"{route.base_url} answers {answer.status_code}.")
    if route.sku.input_per_million is None or route.sku.output_per_million is None:
        return Finding(name_of(route), "warn", _NO_PRICE)
    if answer.status_code >= 400:
        words = f"It answers, with {answer.status_code} to /models. Only --spend tries the key and the model."
        return Finding(name_of(route), "ok", words)
    return Finding(name_of(route), "ok", "It answers, and accepts the key." if key else "It answers.")
