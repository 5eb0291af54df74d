"""The history of an execution, which fails when it has 25,000 events (AWS: "Step Functions service quotas").

It is handed over to another execution before. Should the count be too low, the execution fails, and is followed too.
"""

# Three quarters of the quota at most, because one task may be retried a thousand times.
MAX_EVENTS = 15_000
# A task adds five events, a choice and a wait two each; a retry of a task adds three.
VISIT_EVENTS = 9
RETRY_EVENTS = 3
# Its states outside the visits add about fifty; the rest is for retries.
ROUND_EVENTS = 100


def after_visit(events: int, retries: int) -> int:
    """The number of events after one more visit of RunChunk, which was retried that often."""
    return events + VISIT_EVENTS + RETRY_EVENTS * retries


def is_full(events: int) -> bool:
    """Whether the execution is to be left soon."""
    return events > MAX_EVENTS
