"""Last state of ``run_batch``: end the batch, unless a chunk is to go on in a new execution."""

import time
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import store as batches
from nightshift.core.log import logger
from nightshift.engine.finalize import finalize


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, str]:
    """Takes ``{"account_id", "batch_id", "chunks"}``, where ``chunks`` has how each chunk ended; returns the first two
    and ``status``: ``in_progress`` where the chunks are to be run once more, otherwise the batch's end."""
    account_id, batch_id = event["account_id"], event["batch_id"]
    logger.append_keys(batch_id=batch_id)
    if "renew" in event["chunks"]:
        batch = batches.get(account_id, batch_id)
        if batch.status == "in_progress" and time.time() < batch.expires_at:
            return {"account_id": account_id, "batch_id": batch_id, "status": "in_progress"}
    if all(chunk in ("done", "renew") for chunk in event["chunks"]):
        batch = finalize(account_id, batch_id)
    else:
        batch = finalize(account_id, batch_id, "A chunk worker failed repeatedly.")
    logger.info("batch ended", status=batch.status, request_counts=msgspec.to_builtins(batch.request_counts))
    return {"account_id": account_id, "batch_id": batch_id, "status": batch.status}
