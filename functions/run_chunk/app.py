"""One slice of one chunk: the worker of ``run_batch``."""

from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.engine.visit import look, visit
from nightshift.input.plan import Task


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes ``{"task", "retries"}``, with a ``plan.Task``; returns ``{"state", "wait_seconds", "carry", "events"}``.

    From the sweep it takes ``{"task", "look": true}``, and returns nothing.
    """
    task = msgspec.convert(event["task"], Task)
    logger.append_keys(batch_id=task.batch_id, chunk=task.chunk)
    seconds = context.get_remaining_time_in_millis() / 1000
    if event.get("look"):
        look(task, seconds)
        return {}
    result, events = visit(task, event["retries"], seconds)
    carry: dict[str, Any] = msgspec.to_builtins(result.carry, str_keys=True)
    return {"state": result.state, "wait_seconds": result.wait_seconds, "carry": carry, "events": events}
