"""Executions of the state machine ``run_batch``, one for each batch after another.

The first is named after its batch, a later one ``<batch>-<number>``. The batch's record has the number of the current
one, until when it sleeps, and from when on the sweep has a worker ask the provider whether the wait is over (ADR 24).
An execution that is not the current one ends without effect.
"""

import json
import time
from typing import Any, Literal

import msgspec

from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.core import aws, settings
from nightshift.core.table import Table
from nightshift.input.plan import Task

_TABLE = Table("batches")
_IS_CURRENT = "(attribute_not_exists(#execution) OR #execution = :current)"
_IS_ASLEEP = f"#parked_until = :until AND {_IS_CURRENT}"

ExecutionStatus = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"]


def start(
    account_id: str,
    batch_id: str,
    number: int = 0,
    wait_seconds: int = 0,
    only_task: Task | None = None,
    *,
    is_done: bool = False,
) -> None:
    """Start the batch's execution ``number``, which first waits. If it was started before, nothing happens.

    With ``only_task``, the one of a batch that is validated, it is run at once; if it ``is_done``, the batch is ended.
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
        task = waiting_task(only_task, number, 0, "done" if is_done else None)
        given |= {"run": "end" if is_done else "chunk", "scout": False, "chunks": [], "task": task}
    try:
        stepfunctions.start_execution(
            stateMachineArn=settings.state_machine(),
            name=name_of(batch_id, number),
            input=json.dumps(given),
        )
    except stepfunctions.exceptions.ExecutionAlreadyExists:
        return


def waiting_task(task: Task, execution: int, events: int, state: Literal["done"] | None = None) -> dict[str, object]:
    """The input of RunChunk for a chunk that the execution runs without the Map, before its first slice."""
    first: dict[str, object] = {"state": state, "wait_seconds": 0, "events": events}
    found: dict[str, object] = msgspec.to_builtins(task)
    return found | {"execution": execution, "slice": first}


def follow(batch: Batch, wait_seconds: int) -> bool:
    """Start the execution after the batch's current one; False if another caller has, or the batch has ended.

    Should this be killed between its two steps, the sweep starts the execution.
    """
    parked_until = int(time.time()) + wait_seconds if wait_seconds else None
    number = _next(batch, parked_until)
    if number is None:
        return False
    start(batch.account_id, batch.id, number, wait_seconds)
    return True


def _next(batch: Batch, parked_until: int | None = None, *, condition: str = _IS_CURRENT, **values: Any) -> int | None:
    """The number of the batch's next execution, which is its current one from now on; None where the batch has ended,
    another caller has been faster, or the ``condition`` with its ``values`` does not hold.

    ``parked_until`` is set where the new execution begins with a pause.
    """
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        set={"execution": batch.execution + 1, "parked_until": parked_until},
        remove=["look_at"] if parked_until else ["look_at", "parked_until"],
        condition=f"attribute_exists(#open) AND {condition}",
        current=batch.execution,
        **values,
    )
    return batch.execution + 1 if item else None


def park(batch: Batch, until: int, look_at: int | None = None) -> bool:
    """Record that the batch's execution sleeps until then; False if it has left its status or the execution.

    A cancel that comes later finds the record, and wakes the batch. From ``look_at`` on, the sweep has a worker look.
    """
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        set={"parked_until": until, "look_at": look_at},
        remove=[] if look_at else ["look_at"],
        condition=f"#status = :status AND {_IS_CURRENT}",
        status=batch.status,
        current=batch.execution,
    )
    return item is not None


def unpark(batch: Batch) -> None:
    """Record that the batch's execution sleeps no more: the visit that recorded it was lost, and is made again."""
    _TABLE.update(
        batch.account_id,
        batch.id,
        remove=["parked_until", "look_at"],
        condition=_IS_ASLEEP,
        until=batch.parked_until,
        current=batch.execution,
    )


def put_look(batch: Batch, look_at: int) -> bool:
    """Record from when on the sweep has a worker look next; False if the batch does not sleep as ``batch`` says."""
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        set={"look_at": look_at},
        condition=f"#look_at = :before AND {_IS_ASLEEP}",
        before=batch.look_at,
        until=batch.parked_until,
        current=batch.execution,
    )
    return item is not None


def wake(batch: Batch, only_task: Task | None = None, *, is_done: bool = False) -> bool:
    """Let a batch whose execution sleeps go on at once; False if another caller has, it has ended, or sleeps no more.

    A new execution takes the place of the one that sleeps. If it is given the batch's ``only_task``, it runs that at
    once, or ends the batch if the task ``is_done``. Should this be killed before its start, the sweep starts it.
    """
    until = batch.parked_until
    number = None if until is None else _next(batch, condition=_IS_ASLEEP, until=until)
    if number is None:
        return False
    start(batch.account_id, batch.id, number, only_task=only_task, is_done=is_done)
    stepfunctions = aws.client("stepfunctions")
    try:
        stepfunctions.stop_execution(executionArn=arn_of(batch.id, batch.execution), cause="The batch was woken.")
    except (stepfunctions.exceptions.ExecutionDoesNotExist, stepfunctions.exceptions.ValidationException):
        return True  # it has ended by itself
    return True


def wake_parked(account_id: str, batch_id: str) -> None:
    """Let a batch go on at once if all of it waits."""
    batch = batches.get(account_id, batch_id)
    if batch.is_asleep(time.time()):
        wake(batch)


def look_beside(batch: Batch, task: Task) -> None:
    """Have RunChunk look, beside the batch's execution, whether its only ``task`` need not wait any more."""
    given: dict[str, object] = {"task": msgspec.structs.replace(task, execution=batch.execution), "look": True}
    call = msgspec.json.encode(given)
    aws.client("lambda").invoke(FunctionName=settings.run_chunk(), InvocationType="Event", Payload=call)


def running() -> set[str]:
    """The names of all executions that run."""
    pages = aws.client("stepfunctions").get_paginator("list_executions")
    found = pages.paginate(stateMachineArn=settings.state_machine(), statusFilter="RUNNING")
    return {execution["name"] for page in found for execution in page["executions"]}


def status(batch: Batch) -> ExecutionStatus | None:
    """The status of the batch's current execution; None where it was not started."""
    stepfunctions = aws.client("stepfunctions")
    try:
        return stepfunctions.describe_execution(executionArn=arn_of(batch.id, batch.execution))["status"]
    except stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def name_of(batch_id: str, number: int) -> str:
    """The name of the batch's execution ``number``."""
    return f"{batch_id}-{number}" if number else batch_id


def arn_of(batch_id: str, number: int) -> str:
    """The ARN of the batch's execution ``number``: that of its machine, with another resource type and the execution's
    name."""
    return f"{settings.state_machine().replace(':stateMachine:', ':execution:')}:{name_of(batch_id, number)}"
