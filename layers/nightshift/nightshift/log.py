"""The one logger and the one set of metrics. Never log a prompt, an answer, a key or a URL with a secret in it."""

from functools import cache
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

if TYPE_CHECKING:
    from aws_lambda_powertools import Metrics

logger = Logger(service="nightshift")


@cache
def metrics() -> "Metrics":
    """CloudWatch metrics by the embedded metric format; flush with ``flush_metrics()`` before a handler returns."""
    from aws_lambda_powertools import Metrics

    return Metrics(namespace="Nightshift", service="nightshift")
