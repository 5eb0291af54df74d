"""The journal of `nightshift admin`: who changed what, as lines of the stack's log group."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import typer

# Streams of their own, so that nobody searches the functions' lines for them.
_PREFIX = "admin/"
_READS = frozenset({"audit", "cost", "list", "show", "status"})
_NOT_THE_COMMANDS = frozenset({"stack_name", "region", "local", "as_json", "yes"})


def change(context: typer.Context) -> dict[str, str] | None:
    """The command that runs, and its arguments, if it changes something. No argument of a command is secret."""
    if context.info_name in _READS or context.params.get("dry_run"):
        return None
    arguments = {name: value for name, value in context.params.items() if name not in _NOT_THE_COMMANDS}
    # A limit of 0 is given too, although it equals False.
    given = {name: value for name, value in sorted(arguments.items()) if value not in (None, ()) and value is not False}
    if context.info_name == "quotas" and given.keys() == {"name"}:
        return None  # it only shows them
    words = " ".join(f"{name}={value}" for name, value in given.items())
    return {"command": context.command_path.partition("admin ")[2], "arguments": words}


def record(log_group: str, entry: Mapping[str, str]) -> None:
    """Write the entry with the caller's AWS identity and the time."""
    import boto3

    logs, now = boto3.client("logs"), time.time()
    stream = _PREFIX + time.strftime("%Y-%m-%d", time.gmtime(now))
    with suppress(logs.exceptions.ResourceAlreadyExistsException):  # an earlier command of this day made it
        logs.create_log_stream(logGroupName=log_group, logStreamName=stream)
    caller = boto3.client("sts").get_caller_identity()["Arn"]
    message = json.dumps({"at": int(now), "caller": caller, **entry})
    logs.put_log_events(
        logGroupName=log_group, logStreamName=stream, logEvents=[{"timestamp": int(now * 1000), "message": message}]
    )


def entries(log_group: str) -> Iterator[dict[str, Any]]:
    """Every entry, oldest first."""
    import boto3

    pages = boto3.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=log_group, logStreamNamePrefix=_PREFIX):
        for event in page["events"]:
            if not event["logStreamName"].startswith(_PREFIX):
                continue  # the emulator ignores the prefix
            yield json.loads(event["message"])
