"""How long a worker that may not send waits until it looks again, in seconds.

It is woken when there is room for it. These pauses are for when nobody is there to wake it, so they grow with its place
in the queue: a visit costs about $0.00008, and a day of the longest pauses less than a cent.
"""

from nightshift.routes.health import Health

# What is being given way to is free within a tick or two.
SOON = 4
LONGEST = 900
# A prober comes at its time; the others look after it, one after the other, in case it does not come.
_AFTER_PROBER = 30
_PAUSED = 300


def in_queue(ahead: int) -> int:
    """The pause of a worker with ``ahead`` others before it that have no share either."""
    return min(LONGEST, round(SOON * 1.6 ** min(ahead + 1, 20)))


def until_probe(health: Health, ahead: int, now: float) -> int:
    """The pause on a route that is not healthy, for the worker with ``ahead`` older ones before it."""
    due = max(health.probe_at, health.probe_until) - now
    return max(1, min(LONGEST, round(due) + 1 + _AFTER_PROBER * ahead))


def while_paused(ahead: int) -> int:
    """The pause on a route that the operator paused. ``admin routes resume`` wakes the first ones."""
    return min(LONGEST, _PAUSED * (ahead + 1))
