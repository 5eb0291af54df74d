"""One slice of one chunk: the Distributed Map's worker."""

from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.engine.chunk import Carry
from nightshift.engine.slice import run_slice
from nightshift.input.plan import Task


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a ``plan.Task``; returns ``{"state", "wait_seconds", "carry", "visits"}``."""
    task = msgspec.convert(event, Task)
    visits = task.slice.get("visits", 0) + 1
    carry = msgspec.convert(task.slice.get("carry") or {}, Carry, str_keys=True)
    logger.append_keys(batch_id=task.batch_id, chunk=task.chunk)
    result = run_slice(task, carry, visits, context.get_remaining_time_in_millis() / 1000)
    answer: dict[str, Any] = msgspec.to_builtins(result, str_keys=True)
    return answer | {"visits": visits}
