"""Executions of the state machine ``run_batch``, each named after its batch."""

import json
from typing import Literal

from nightshift.core import aws, settings

ExecutionStatus = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"]


def start(account_id: str, batch_id: str) -> None:
    """Start the batch's execution. Repeating it does nothing: the same name and input is the same execution."""
    aws.client("stepfunctions").start_execution(
        stateMachineArn=settings.state_machine(),
        name=batch_id,
        input=json.dumps({"account_id": account_id, "batch_id": batch_id}),
    )


def running() -> set[str]:
    """The ids of all batches whose execution is running."""
    pages = aws.client("stepfunctions").get_paginator("list_executions")
    found = pages.paginate(stateMachineArn=settings.state_machine(), statusFilter="RUNNING")
    return {execution["name"] for page in found for execution in page["executions"]}


def status(batch_id: str) -> ExecutionStatus | None:
    """The status of the batch's execution; None where it has none."""
    stepfunctions = aws.client("stepfunctions")
    # An execution's ARN is its machine's, with another resource type and the execution's name.
    arn = f"{settings.state_machine().replace(':stateMachine:', ':execution:')}:{batch_id}"
    try:
        return stepfunctions.describe_execution(executionArn=arn)["status"]
    except stepfunctions.exceptions.ExecutionDoesNotExist:
        return None
