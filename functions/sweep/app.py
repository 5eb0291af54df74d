"""Every five minutes: batches that nobody is working on. Lost starts are started; what is overdue, or left behind by an
execution that has ended, is ended."""

import json
import random
import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import store as batches
from nightshift.core import aws, settings
from nightshift.core.log import count, logger
from nightshift.engine.finalize import finalize

# A batch is created and started within seconds; older ones without an execution have lost their start.
LOST_AFTER_SECONDS = 120
# Finalize may take its time after the deadline, and after a cancel.
OVERDUE_SECONDS = 3600
CANCELLING_SECONDS = 900


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Takes a scheduled event; returns how many batches were ``{"started", "ended"}``, or ``failed`` to be."""
    now = int(time.time())
    started = ended = failed = 0
    found = batches.open_of_all(created_before=now - LOST_AFTER_SECONDS)
    oldest = min((batch["created_at"] for batch in found), default=now)
    count({"OpenBatches": len(found), "OldestOpenBatchSeconds": now - oldest})
    # In any order: should one of them end this invocation, those behind it have their turn the next time.
    random.shuffle(found)
    for batch in found:
        account_id, batch_id = batch["pk"], batch["sk"]
        try:
            late = _is_late(batch, now)
            execution = None if late else _execution_status(batch_id)
            if late or execution not in ("RUNNING", None):
                # Its execution, or CloseAbandoned, should have ended it; doing that twice does no harm.
                finalize(account_id, batch_id)
                ended += 1
                logger.warning("batch ended", batch_id=batch_id, late=late, execution_status=execution)
            elif execution is None:
                _start(account_id, batch_id)
                started += 1
                logger.warning("lost batch started", batch_id=batch_id)
        except Exception:
            # One batch that cannot be helped keeps nobody else waiting; the next sweep tries it again.
            failed += 1
            logger.exception("batch not swept", batch_id=batch_id)
    return {"started": started, "ended": ended, "failed": failed}


def _is_late(batch: dict[str, Any], now: int) -> bool:
    """Whether the batch should have ended long ago, whatever its execution does: a Map may wait for a place to run."""
    if batch["status"] == "cancelling":
        asked_at = batches.get(batch["pk"], batch["sk"]).get("cancelling_at", now)
        return bool(asked_at + CANCELLING_SECONDS < now)
    return bool(batch["expires_at"] + OVERDUE_SECONDS < now)


def _execution_status(batch_id: str) -> str | None:
    """The status of the batch's execution; None where it has none."""
    stepfunctions = aws.client("stepfunctions")
    arn = f"{settings.state_machine().replace(':stateMachine:', ':execution:')}:{batch_id}"
    try:
        return str(stepfunctions.describe_execution(executionArn=arn)["status"])
    except stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def _start(account_id: str, batch_id: str) -> None:
    aws.client("stepfunctions").start_execution(
        stateMachineArn=settings.state_machine(),
        name=batch_id,
        input=json.dumps({"account_id": account_id, "batch_id": batch_id}),
    )
