"""Last state of ``run_batch``: join the results and end the batch."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.finalize import finalize
from nightshift.log import logger


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes and returns ``{"account_id", "batch_id"}``; adds ``status``."""
    logger.append_keys(batch_id=event["batch_id"])
    batch = finalize(event["account_id"], event["batch_id"])
    logger.info("batch ended", status=batch["status"], request_counts=batch.get("request_counts"))
    return {"account_id": event["account_id"], "batch_id": event["batch_id"], "status": batch["status"]}
