"""The journal of `nightshift admin`: who changed what, as lines of the stack's log group."""

import json
import time
import uuid
from collections.abc import Iterator
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
    if "webhook" in given:
        given["webhook"] = str(given["webhook"]).partition("?")[0]  # a receiver's token may follow
    words = " ".join(f"{name}={value}" for name, value in given.items())
    return {"command": context.command_path.partition("admin ")[2], "arguments": words}


class Entry:
    """What the journal has of one command; nothing of one that changes nothing (``change`` is None).

    A command is written before it is carried out. What is known later (``changes``, ``error``) is a line of its own.
    """

    def __init__(self, log_group: str, change: dict[str, str] | None) -> None:
        self._log_group = log_group
        self._change = change
        self._id = uuid.uuid4().hex

    def begin(self) -> None:
        if self._change is not None:
            import boto3

            self.add(caller=boto3.client("sts").get_caller_identity()["Arn"], **self._change)

    def add(self, **fields: str) -> None:
        """Write fields of the entry, with the time."""
        if self._change is None:
            return
        import boto3

        logs, now = boto3.client("logs"), time.time()
        stream = _PREFIX + time.strftime("%Y-%m-%d", time.gmtime(now))
        with suppress(logs.exceptions.ResourceAlreadyExistsException):  # an earlier command of this day made it
            logs.create_log_stream(logGroupName=self._log_group, logStreamName=stream)
        # CloudWatch takes no line of more than 256 KB.
        message = json.dumps({"id": self._id, "at": int(now)} | {name: text[:60_000] for name, text in fields.items()})
        logs.put_log_events(
            logGroupName=self._log_group,
            logStreamName=stream,
            logEvents=[{"timestamp": int(now * 1000), "message": message}],
        )


def entries(log_group: str) -> list[dict[str, Any]]:
    """Every command, oldest first, with all that was written of it."""
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(sorted(_lines(log_group), key=lambda line: line["at"])):
        id_ = line.pop("id", str(number))  # older versions wrote one line for a command, without an id
        found[id_] = line | found.get(id_, {})
    return list(found.values())


def _lines(log_group: str) -> Iterator[dict[str, Any]]:
    import boto3

    pages = boto3.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=log_group, logStreamNamePrefix=_PREFIX):
        for event in page["events"]:
            if not event["logStreamName"].startswith(_PREFIX):
                continue  # the emulator ignores the prefix
            yield json.loads(event["message"])
