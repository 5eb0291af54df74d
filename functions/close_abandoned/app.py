"""An execution failed, timed out or was aborted: end its batch all the same."""

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.engine.finalize import finalize

_REASONS = {
    "ABORTED": "The batch was stopped by its operator.",
    "TIMED_OUT": "The batch exceeded the maximum run time.",
    "FAILED": "The batch could not be run to its end.",
}


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, str | None]:
    """Takes EventBridge's "Step Functions Execution Status Change"; returns the batch's ``{"status"}``."""
    task = json.loads(event["detail"]["input"])
    if event["detail"]["name"] != task["batch_id"]:
        return {"status": None}  # a chunk's execution: its Map goes on
    logger.append_keys(batch_id=task["batch_id"])
    execution_status = event["detail"]["status"]
    batch = finalize(task["account_id"], task["batch_id"], _REASONS[execution_status])
    logger.warning("abandoned batch closed", execution_status=execution_status, status=batch.status)
    return {"status": batch.status}
