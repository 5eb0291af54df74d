"""A worker's place at its route: what it may send now, and what it tells the route's other workers.

``Place.take`` is called when the worker starts, and at each of its ticks. It reads the route's state once, and writes
the worker's lease. All calls block, so a run makes them in threads.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import msgspec

from nightshift.chunks.permit import Permit, Reason
from nightshift.chunks.route_watch import TRIES, RouteWatch, SharedHealth
from nightshift.core.log import logger
from nightshift.routes import health as healths
from nightshift.routes import lease as leases
from nightshift.routes import pauses
from nightshift.routes.health import Trouble
from nightshift.routes.lease import LATE_SECONDS, LEASE_SECONDS, Lease
from nightshift.routes.level import Level, differs, is_news
from nightshift.routes.route import Route
from nightshift.routes.share import Sharing, ahead_of, in_turn, share_out
from nightshift.routes.state import View


class SharedState(SharedHealth, Protocol):
    """``routes.state.RouteState``, or a stand-in for tests and simulations."""

    def put(self, lease: Lease, before: Lease | None) -> bool: ...
    def grow(self, lease: Lease, before: Lease | None, version: int) -> bool: ...
    def drop(self, lease: Lease) -> None: ...
    def begin_turn(self, account_id: str, now: float) -> None: ...
    def put_level(self, level: Level) -> None: ...


class Place:
    """The place of one chunk's worker.

    ``lease`` names the worker and its chunk. ``wake`` starts the waiting chunk of another lease at once.

    Example:
        permit = place.take(wanted=200)
        permit = place.take(wanted=120, in_use=64, answered_at=now)  # at each tick
        place.leave("wait", wanted=40, pause=permit.pause)
    """

    def __init__(
        self,
        route: Route,
        lease: Lease,
        state: SharedState,
        wake: Callable[[Lease], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._route = route
        self._lease = lease
        self._state = state
        self._wake = wake
        self._clock = clock
        self._watch = RouteWatch(route, lease.worker, state, clock)
        self._began = False
        self._level = Level()  # what this worker knows of what all have learned
        self._woken: dict[tuple[str, int], float] = {}

    def take(
        self,
        wanted: int,
        in_use: int = 0,
        answered_at: float = 0.0,
        level: Level | None = None,
        wanted_soon: int | None = None,
    ) -> Permit:
        """Renew the lease and say what may be sent.

        ``wanted`` is what the worker could have in flight, ``wanted_soon`` what it still could in a few seconds, and
        ``in_use`` what it has; ``answered_at`` is when the last good answer came, and ``level`` what its pacer has
        learned.
        """
        for _ in range(TRIES):
            view = self._state.read()
            permit = self._try(view, wanted, wanted_soon, in_use, answered_at)
            if permit is not None:
                return msgspec.structs.replace(permit, level=self._exchange(level, view.level))
        # Others grow all the time. What the worker holds ends with its lease, and the next tick tries again.
        until = self._lease.expires_at - leases.SKEW_SECONDS
        return Permit(min(self._lease.granted, in_use), until, pauses.SOON, "queue")

    def report(self, trouble: Trouble) -> int:
        """Say that the route cannot answer. Returns the seconds until the worker, which leaves now, comes again."""
        return self._watch.report(trouble)

    def leave(
        self, ending: Literal["done", "more", "wait"], wanted: int = 0, pause: int = 0, answered_at: float = 0.0
    ) -> None:
        """End the slice: give the lease back, keep it for the next slice, or keep the place in the queue."""
        now = self._clock()
        if ending == "done":
            self._state.drop(self._lease)
        elif ending == "wait":
            self._put(self._waiting(self._lease, wanted, pause, now))
        else:
            self._put(msgspec.structs.replace(self._lease, in_use=0, expires_at=now + LEASE_SECONDS))
        if ending != "more":
            view = self._state.read()
            live = leases.live(view.leases, now)
            health = self._watch.checked(view.health, answered_at, now)
            if view.control != "paused" and health is not None and health.trouble is None:
                self._wake_waiting(live, view.turns, now)

    # --- what may be sent ------------------------------------------------------------------------------------

    def _try(self, view: View, wanted: int, wanted_soon: int | None, in_use: int, answered_at: float) -> Permit | None:
        """The permit; None if another worker wrote in between."""
        now = self._clock()
        before = next((lease for lease in view.leases if lease.key == self._lease.key), None)
        if self._began and before is not None and before.worker != self._lease.worker:
            return Permit(0, reason="replaced")
        health = self._watch.checked(view.health, answered_at, now)
        if health is None:
            return None
        holds = leases.held(before, now)
        own = msgspec.structs.replace(
            self._lease,
            wanted=max(wanted, in_use),
            granted=holds,
            in_use=in_use,
            wanted_soon=wanted_soon,
            since=before.since if before else now,
            expires_at=now + LEASE_SECONDS,
            next_visit_at=0.0,
        )
        others = [lease for lease in leases.live(view.leases, now) if lease.key != own.key]
        older = sum(lease.age < own.age for lease in others)
        if view.control == "paused":
            return self._settle(view, before, own, others, 0, pauses.while_paused(older), "paused")
        if not healths.may_send(health, own.worker, holds > 0):
            is_prober = health.prober == own.worker or (
                leases.free(others, self._route.max_concurrency) > 0 and self._watch.claims(health, now)
            )
            pause = pauses.until_probe(health, older, now)
            return self._settle(view, before, own, others, int(is_prober), pause, "broken")
        sharing = self._share_out([*others, own], view.turns, now)
        share = sharing.shares[own.key]
        pause = pauses.SOON if share else pauses.in_queue(ahead_of(own, [*others, own], sharing))
        permit = self._settle(view, before, own, others, share, pause, "queue")
        if permit is None:
            return None
        if permit.ceiling:
            self._keep_order([*others, self._lease], sharing, view.turns, now)
            return permit
        next_sharing = self._share_out(leases.soon([*others, self._lease]), view.turns, now)
        return msgspec.structs.replace(permit, is_near=next_sharing.shares[own.key] > 0)

    def _settle(
        self, view: View, before: Lease | None, own: Lease, others: list[Lease], share: int, pause: int, reason: Reason
    ) -> Permit | None:
        """Write the lease with what ``share`` allows; None if another worker wrote in between."""
        limit = self._route.max_concurrency
        available = max(0, leases.free(others, limit) - own.granted)
        granted = leases.grant(share, own.granted, own.in_use, available)
        new = msgspec.structs.replace(own, granted=granted)
        if not granted:
            new = self._waiting(new, own.wanted, pause, self._clock())
        grows = granted > own.granted
        written = self._state.grow(new, before, view.version) if grows else self._state.put(new, before)
        if not written:
            return None
        self._lease, self._began = new, True
        return Permit(
            min(granted, share),
            new.expires_at - leases.SKEW_SECONDS,
            0 if share and granted else pause,
            "" if share and granted else reason,
            reason == "broken" and granted > 0,
            leases.part_of_rate(self._route.requests_per_minute, granted, others),
            leases.part_of_rate(self._route.tokens_per_minute, granted, others),
        )

    def _share_out(self, live: list[Lease], turns: Mapping[str, float], now: float) -> Sharing:
        return share_out(live, self._route.max_concurrency, turns, now)

    def _waiting(self, lease: Lease, wanted: int, pause: int, now: float) -> Lease:
        return msgspec.structs.replace(
            lease,
            wanted=wanted,
            granted=0,
            in_use=0,
            wanted_soon=None,
            next_visit_at=now + pause,
            expires_at=now + pause + LATE_SECONDS,
        )

    def _put(self, lease: Lease) -> None:
        if self._state.put(lease, self._lease):
            self._lease = lease

    # --- the others ------------------------------------------------------------------------------------------

    def _keep_order(self, live: list[Lease], sharing: Sharing, turns: Mapping[str, float], now: float) -> None:
        """Begin a turn while others wait; and let one of the workers, the first, wake those for whom there is room."""
        own = self._lease
        if sharing.waiting and not in_turn(own.account_id, own.weight, turns, now):
            self._state.begin_turn(own.account_id, now)
        if own.key == min(lease.key for lease in live if lease.granted):
            self._wake_waiting(live, turns, now)

    def _wake_waiting(self, live: list[Lease], turns: Mapping[str, float], now: float) -> None:
        ahead = leases.soon(live)
        shares = self._share_out(ahead, turns, now).shares
        available = leases.free(ahead, self._route.max_concurrency)
        for lease in leases.to_wake(ahead, shares, available, now):
            if self._woken.get(lease.key, 0.0) + LEASE_SECONDS < now:
                self._woken[lease.key] = now
                self._try_to_wake(lease)

    def _try_to_wake(self, lease: Lease) -> None:
        try:
            self._wake(lease)
        except Exception:
            # It looks again by itself, only later.
            logger.exception("waiting batch not woken", waiting_batch_id=lease.batch_id)

    def _exchange(self, own: Level | None, shared: Level) -> Level | None:
        """What others have learned; if that is nothing new, they are told what this worker has learned."""
        now = self._clock()
        if is_news(shared, self._level, now):
            self._level = shared
            return shared
        if own is not None and differs(own, self._level):
            self._level = msgspec.structs.replace(own, at=now)
            self._state.put_level(self._level)
        return None
