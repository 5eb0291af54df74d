"""First state of ``run_batch``: the batch is validated and has its plan, or it has ended, or it is being cancelled."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import planning
from nightshift.batches import store as batches
from nightshift.batches.validate import validate
from nightshift.core import settings
from nightshift.core.log import logger
from nightshift.input import plan

# The time that is kept for writing the plan and the status.
MARGIN_SECONDS = 30


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, object]:
    """Takes and returns ``{"account_id", "batch_id"}``; adds ``status``; ``bucket`` and ``plan`` for the Map, and
    ``chunks``, where the Map puts how each chunk ended."""
    account_id, batch_id = event["account_id"], event["batch_id"]
    logger.append_keys(batch_id=batch_id)
    batch = batches.get(account_id, batch_id)
    if batch.status == "validating":
        batch = validate(batch, context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    if batch.status == "in_progress":
        planning.ensure_plan(batch)
    logger.info("batch validated", status=batch.status, lines=batch.plan and batch.plan.lines)
    return {
        "account_id": account_id,
        "batch_id": batch_id,
        "status": batch.status,
        "bucket": settings.bucket(),
        "plan": plan.key(batch_id),
        "chunks": [],
    }
