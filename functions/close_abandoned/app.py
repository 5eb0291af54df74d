"""An execution failed, timed out or was aborted: its batch goes on in another one, or ends."""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.engine import rounds


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, str | None]:
    """Takes EventBridge's "Step Functions Execution Status Change"; returns the batch's ``{"status"}``."""
    detail = event["detail"]
    if not detail["name"].startswith("batch_"):
        return {"status": None}  # a chunk's execution: its Map goes on
    task = json.loads(detail["input"])
    logger.append_keys(batch_id=task["batch_id"])
    batch = rounds.execution_ended(task["account_id"], task["batch_id"], task["execution"], detail["status"])
    logger.warning("execution ended", execution_status=detail["status"], status=batch.status)
    return {"status": batch.status}
