"""Last state of ``run_batch``: join the results and end the batch, unless a chunk is to go on in a new execution."""

import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import store as batches
from nightshift.core.log import logger
from nightshift.engine.finalize import finalize


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes ``{"account_id", "batch_id", "chunks"}``, where ``chunks`` has how each chunk ended; returns the first two
    and ``status``: ``in_progress`` where the chunks are to be run once more, otherwise the batch's end."""
    logger.append_keys(batch_id=event["batch_id"])
    if "renew" in event["chunks"]:
        batch = batches.get(event["account_id"], event["batch_id"])
        if batch["status"] == "in_progress" and time.time() < batch["expires_at"]:
            return {"account_id": batch["pk"], "batch_id": batch["sk"], "status": "in_progress"}
    failed = [chunk for chunk in event["chunks"] if chunk not in ("done", "renew")]
    why = {"why": "A worker failed again and again."} if failed else {}
    batch = finalize(event["account_id"], event["batch_id"], **why)
    logger.info("batch ended", status=batch["status"], request_counts=batch.get("request_counts"))
    return {"account_id": event["account_id"], "batch_id": event["batch_id"], "status": batch["status"]}
