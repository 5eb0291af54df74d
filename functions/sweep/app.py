"""Every five minutes: start or end batches that no execution works on, and look at providers that are waited for."""

import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from msgspec.structs import asdict
from nightshift.core.log import logger
from nightshift.engine.sweep import sweep


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Takes a scheduled event; returns how many batches were ``{"started", "ended", "looked", "failed"}``."""
    return asdict(sweep(int(time.time())))
