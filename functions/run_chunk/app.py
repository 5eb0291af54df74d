"""One slice of one chunk: the Distributed Map's worker."""

from dataclasses import asdict
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.engine.slice import run_slice
from nightshift.input.plan import Task


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a ``plan.Task``; returns ``{"state", "wait_seconds", "carry", "visits"}``."""
    task = msgspec.convert(event, Task)
    visits = task.slice.get("visits", 0) + 1
    logger.append_keys(batch_id=task.batch_id, chunk=task.chunk)
    result = run_slice(task, visits, context.get_remaining_time_in_millis() / 1000)
    return {**asdict(result), "visits": visits}
