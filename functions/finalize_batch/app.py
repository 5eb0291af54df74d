"""Last state of a round of ``run_batch``: start another round, or end the batch."""

from typing import Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.core.log import logger
from nightshift.engine import rounds
from nightshift.engine.rounds import Round


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes a ``rounds.Round``; returns a ``rounds.Next``."""
    done = msgspec.convert(event, Round)
    logger.append_keys(batch_id=done.batch_id)
    following = rounds.after(done)
    logger.info("round ended", status=following.status, goes_on=following.goes_on, failures=following.failures)
    answer: dict[str, Any] = msgspec.to_builtins(following)
    return answer
