"""The logger, and metrics. Never log a prompt, an answer, a key or a URL that holds a secret."""

from aws_lambda_powertools import Logger

# POWERTOOLS_SERVICE_NAME is the stack's name.
logger = Logger()


def count(values: dict[str, float], route: str | None = None) -> None:
    """Write metrics in the namespace ``Nightshift``, as CloudWatch's embedded metric format.

    They have the dimension ``service``, which is the stack's name, and with ``route`` that one too. A name that ends in
    ``Seconds`` is a time, any other a count.
    """
    # Imported here, because most functions count nothing and their cold starts would pay for it.
    from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

    metrics = EphemeralMetrics(namespace="Nightshift")
    if route is not None:
        metrics.add_dimension("route", route)
    for name, value in values.items():
        unit = MetricUnit.Seconds if name.endswith("Seconds") else MetricUnit.Count
        metrics.add_metric(name, unit, value)
    metrics.flush_metrics()
