"""The beginning of a round of ``run_batch``: the batch is validated and has its plan, or it has ended or is to end."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import executions, planning
from nightshift.batches import store as batches
from nightshift.batches.validate import validate
from nightshift.core import settings
from nightshift.core.log import logger
from nightshift.engine import rounds
from nightshift.input import plan

# The time that is kept for writing the plan and the status.
MARGIN_SECONDS = 30


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, object]:
    """Takes ``{"account_id", "batch_id", "execution", "failures", "wait_seconds", "events"}``; returns the first four.

    Adds ``status``; ``run``, which is ``chunks``, ``chunk`` if only one is to run, or ``nothing``; ``scout``, whether
    that one is a scout; ``task``, its task, with the events of the execution's history; ``bucket`` and ``plan`` for the
    Map; and ``chunks``, where the Map puts how each chunk ended.
    """
    account_id, batch_id = event["account_id"], event["batch_id"]
    logger.append_keys(batch_id=batch_id)
    batch = batches.get(account_id, batch_id)
    if batch.status == "validating":
        batch = validate(batch, context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    tasks = planning.ensure_plan(batch) if batch.is_open_to_work else []
    scout = rounds.scout_of(batch, tasks, event["wait_seconds"], event["failures"])
    if scout is not None:
        tasks = [scout]
    none = {"slice": {"state": None, "wait_seconds": 0, "events": event["events"]}}
    logger.info("batch validated", status=batch.status, lines=batch.plan and batch.plan.lines)
    return {
        "account_id": account_id,
        "batch_id": batch_id,
        "execution": event["execution"],
        "failures": event["failures"],
        "status": batch.status,
        "run": ("nothing", "chunk")[len(tasks)] if len(tasks) < 2 else "chunks",
        "scout": scout is not None,
        "task": executions.waiting_task(tasks[0], event["execution"], event["events"]) if len(tasks) == 1 else none,
        "bucket": settings.bucket(),
        "plan": plan.key(batch_id),
        "chunks": [],
    }
