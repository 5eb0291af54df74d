"""Everything that an AWS account holds, of the services that a stack uses."""

from collections.abc import Callable, Iterator
from typing import Any

import jmespath  # type: ignore[import-untyped]

# Service, operation, and what its answer names each thing by.
_LISTS = (
    ("apigateway", "get_rest_apis", "items[].name"),
    ("cloudformation", "describe_stacks", "Stacks[].StackName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms[].AlarmName"),
    ("cloudwatch", "list_dashboards", "DashboardEntries[].DashboardName"),
    ("dynamodb", "list_tables", "TableNames"),
    ("events", "list_event_buses", "EventBuses[].Name"),
    ("iam", "list_roles", "Roles[].RoleName"),
    ("lambda", "list_event_source_mappings", "EventSourceMappings[].UUID"),
    ("lambda", "list_functions", "Functions[].FunctionName"),
    ("lambda", "list_layers", "Layers[].LatestMatchingVersion.LayerVersionArn"),
    ("logs", "describe_log_groups", "logGroups[].logGroupName"),
    ("logs", "describe_metric_filters", "metricFilters[].filterName"),
    ("s3", "list_buckets", "Buckets[].Name"),
    ("secretsmanager", "list_secrets", "SecretList[].Name"),
    ("sns", "list_topics", "Topics[].TopicArn"),
    ("sqs", "list_queues", "QueueUrls"),
    ("stepfunctions", "list_state_machines", "stateMachines[].name"),
)


def inventory(aws: Callable[[str], Any]) -> set[str]:
    """Each thing, by the operation that lists it and its name."""
    return set(_things(aws))


def _things(aws: Callable[[str], Any]) -> Iterator[str]:
    for service, operation, names in _LISTS:
        client = aws(service)
        pages = client.get_paginator(operation).paginate() if client.can_paginate(operation) else [_all(client)]
        for page in pages:
            yield from (f"{service} {operation} {name}" for name in jmespath.search(names, page) or ())
    for bus in _all(aws("events"))["EventBuses"]:
        for rule in aws("events").list_rules(EventBusName=bus["Name"])["Rules"]:
            yield f"events list_rules {bus['Name']} {rule['Name']}"
    for policy in aws("iam").list_policies(Scope="Local")["Policies"]:
        yield f"iam list_policies {policy['PolicyName']}"


def _all(events: Any) -> Any:
    """The event buses, of which there are no pages."""
    return events.list_event_buses()
