"""Executions of the state machine ``run_batch``, one at a time for each batch.

The first is named after its batch, a later one ``<batch>-<number>``. The batch's record has the number of the current
one. An execution that is not the current one ends without effect.
"""

import json
import time
from typing import Literal

import msgspec

from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.core import aws, settings
from nightshift.input.plan import Task

ExecutionStatus = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"]


def start(
    account_id: str, batch_id: str, number: int = 0, wait_seconds: int = 0, only_task: Task | None = None
) -> None:
    """Start the batch's execution ``number``, which first waits. If it was started before, nothing happens.

    With ``only_task``, the one of a batch that is validated, it is run at once.
    """
    stepfunctions = aws.client("stepfunctions")
    given: dict[str, object] = {
        "account_id": account_id,
        "batch_id": batch_id,
        "execution": number,
        "wait_seconds": wait_seconds,
        "failures": 0,
        "events": 0,
    }
    if only_task is not None:
        given |= {"run": "chunk", "scout": False, "chunks": [], "task": waiting_task(only_task, number, 0)}
    try:
        stepfunctions.start_execution(
            stateMachineArn=settings.state_machine(),
            name=_name(batch_id, number),
            input=json.dumps(given),
        )
    except stepfunctions.exceptions.ExecutionAlreadyExists:
        return


def waiting_task(task: Task, execution: int, events: int) -> dict[str, object]:
    """The input of RunChunk for a chunk that the execution runs without the Map, before its first slice."""
    first: dict[str, object] = {"state": None, "wait_seconds": 0, "events": events}
    found: dict[str, object] = msgspec.to_builtins(task)
    return found | {"execution": execution, "slice": first}


def follow(batch: Batch, wait_seconds: int, only_task: Task | None = None) -> bool:
    """Start the execution after the batch's current one; False if another caller has, or the batch has ended.

    With ``only_task``, it is run at once.

    Should this be killed between its two steps, the sweep starts the execution.
    """
    parked_until = int(time.time()) + wait_seconds if wait_seconds else None
    followed = batches.next_execution(batch, parked_until)
    if followed is None:
        return False
    start(batch.account_id, batch.id, followed.execution, wait_seconds, only_task)
    return True


def wake(batch: Batch, only_task: Task | None = None) -> bool:
    """Let a batch whose execution waits go on at once; False if another caller has, or the batch has ended.

    A new execution takes the place of the one that waits, and runs the batch's ``only_task`` at once if that is given.
    No harm is done if that one works meanwhile.
    """
    if not follow(batch, 0, only_task):
        return False
    stepfunctions = aws.client("stepfunctions")
    try:
        stepfunctions.stop_execution(executionArn=arn_of(batch.id, batch.execution), cause="The batch was woken.")
    except (stepfunctions.exceptions.ExecutionDoesNotExist, stepfunctions.exceptions.ValidationException):
        return True  # it has ended by itself
    return True


def wake_parked(account_id: str, batch_id: str) -> None:
    """Let a batch go on at once if all of it waits."""
    batch = batches.get(account_id, batch_id)
    if (batch.parked_until or 0) > time.time():
        wake(batch)


def look_beside(batch: Batch, task: Task) -> None:
    """Have RunChunk look, beside the batch's execution, whether its only ``task`` need not wait any more."""
    given: dict[str, object] = {"task": msgspec.structs.replace(task, execution=batch.execution), "look": True}
    call = msgspec.json.encode(given)
    aws.client("lambda").invoke(FunctionName=settings.run_chunk(), InvocationType="Event", Payload=call)


def running() -> set[str]:
    """The ids of all batches of which an execution is running."""
    pages = aws.client("stepfunctions").get_paginator("list_executions")
    found = pages.paginate(stateMachineArn=settings.state_machine(), statusFilter="RUNNING")
    return {execution["name"].partition("-")[0] for page in found for execution in page["executions"]}


def status(batch: Batch) -> ExecutionStatus | None:
    """The status of the batch's current execution; None where it was not started."""
    stepfunctions = aws.client("stepfunctions")
    try:
        return stepfunctions.describe_execution(executionArn=arn_of(batch.id, batch.execution))["status"]
    except stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def _name(batch_id: str, number: int) -> str:
    return f"{batch_id}-{number}" if number else batch_id


def arn_of(batch_id: str, number: int) -> str:
    """The ARN of the batch's execution ``number``: that of its machine, with another resource type and the execution's
    name."""
    return f"{settings.state_machine().replace(':stateMachine:', ':execution:')}:{_name(batch_id, number)}"
