"""The one logger, and metrics. Never log a prompt, an answer, a key or a URL with a secret in it."""

from aws_lambda_powertools import Logger

logger = Logger(service="nightshift")


def count(values: dict[str, float], route: str | None = None) -> None:
    """Write metrics (CloudWatch embedded metric format) in the namespace ``Nightshift``, by name and, where given, by
    ``route``. Names that end in ``Seconds`` are times."""
    # Imported here, because functions that count nothing need not pay for it.
    from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

    metrics = EphemeralMetrics(namespace="Nightshift", service="nightshift")
    if route is not None:
        metrics.add_dimension("route", route)
    for name, value in values.items():
        unit = MetricUnit.Seconds if name.endswith("Seconds") else MetricUnit.Count
        metrics.add_metric(name, unit, value)
    metrics.flush_metrics()
