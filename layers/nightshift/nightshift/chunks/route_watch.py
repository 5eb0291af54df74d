"""The health of a route as one worker sees it, and what it tells the route's other workers.

All calls block, so a run makes them in threads.
"""

import time
from collections.abc import Callable
from typing import Protocol

from nightshift.core.log import count, logger
from nightshift.routes import health as healths
from nightshift.routes import pauses
from nightshift.routes.health import Health, Trouble
from nightshift.routes.route import Route
from nightshift.routes.state import View

# Another worker may write between our read and our write. Then we read again, at most so often.
TRIES = 4
# A probe may take as long as a request, and the prober as long to start and to report.
PROBE_MARGIN = 30.0


class SharedHealth(Protocol):
    """``routes.state.RouteState``, or a stand-in for tests and simulations."""

    def read(self) -> View: ...
    def put_health(self, health: Health) -> bool: ...


class RouteWatch:
    """Watches ``route`` for the worker ``worker``."""

    def __init__(self, route: Route, worker: str, state: SharedHealth, clock: Callable[[], float] = time.time) -> None:
        self._route = route
        self._worker = worker
        self._state = state
        self._clock = clock
        self._in_trouble = False

    def pause(self, *, starts: bool) -> int:
        """Seconds until this worker, which holds no lease, may ask the route anything; 0 if it may now.

        On a route in trouble it may if it is the prober. A route that its operator paused ``starts`` nothing.
        """
        for _ in range(TRIES):
            view, now = self._state.read(), self._clock()
            health = view.health
            self._in_trouble = health.trouble is not None
            if starts and view.control == "paused":
                return pauses.while_paused(0)
            if health.prober == self._worker or healths.may_send(health, self._worker, is_running=False):
                return 0
            if not healths.may_probe(health, now):
                return pauses.until_probe(health, 0, now)
            if self.claims(health, now):
                return 0
        return pauses.SOON

    def answers(self) -> None:
        """The route has answered this worker, which had asked for its ``pause`` before."""
        for _ in range(TRIES if self._in_trouble else 0):
            if self.checked(self._state.read().health, self._clock(), self._clock()) is not None:
                self._in_trouble = False
                return

    def report(self, trouble: Trouble) -> int:
        """Say that the route cannot answer. Returns the seconds until the worker, which leaves now, comes again."""
        for _ in range(TRIES):
            before = self._state.read().health
            after = healths.reported(before, trouble, self._worker, self._clock())
            if self._state.put_health(after):
                _tell(self._route, after)
                return pauses.until_probe(after, 0, self._clock())
        return pauses.SOON

    def checked(self, health: Health, answered_at: float, now: float) -> Health | None:
        """The health, after an answer that came since the trouble was seen; None if another worker wrote it."""
        if health.trouble is None or answered_at <= health.seen_at:
            return health
        health = healths.answered(health, now)
        if not self._state.put_health(health):
            return None
        _tell(self._route, health)
        return health

    def claims(self, health: Health, now: float) -> bool:
        """Whether this worker is to send the probe that is due."""
        if not healths.may_probe(health, now):
            return False
        seconds = self._route.timeout_seconds + PROBE_MARGIN
        return self._state.put_health(healths.claimed(health, self._worker, now, seconds))


def _tell(route: Route, health: Health) -> None:
    """Log a change of the route's health, and count a broken route for the alarm."""
    trouble = health.trouble
    name = f"{route.provider}/{route.model}"
    if trouble is None:
        logger.info("route answers again", route=name)
        return
    logger.error(
        "route is in trouble",
        route=name,
        state=health.state,
        kind=trouble.kind,
        status=trouble.status,
        words=trouble.words,
    )
    if health.confirmed:
        # With the route for who looks at it, and without for the alarm, which knows no routes.
        count({"RouteBroken": 1}, route=name)
        count({"RouteBroken": 1})
