"""A worker's lease: how many requests it may have in flight to its route, as all workers of the route see it.

The sum of what live leases grant never exceeds the route's limit, because a lease grows only by what is free, in a
transaction that fails if another lease has grown since it was read (``leases.grow``). Times are seconds since 1970.
"""

from collections.abc import Iterable, Sequence

import msgspec

# A lease is renewed every four seconds. One of a worker that crashed ends so long after its last renewal.
LEASE_SECONDS = 20.0
# A worker counts its own lease as over so long before all others do: the clocks of two workers may differ by that much.
SKEW_SECONDS = 5.0
# A waiting worker is woken so long before there is room for it: starting it takes seconds.
NEWCOMER_SECONDS = 6.0
# A visit that is due in less is not worth waking for.
WAKE_SECONDS = 1.0
# A waiting worker's lease outlives its next visit by this, so that it keeps its place when the visit comes late.
LATE_SECONDS = 120.0


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk's place at its route, held by the invocation ``worker``.

    ``wanted``, ``granted`` and ``in_use`` are requests in flight: what the worker could use, what it may have at most,
    and what it has; ``wanted_soon`` is what it could still use in ``NEWCOMER_SECONDS``, None for as much as now. One
    that waits is granted none, and looks again at ``next_visit_at``. ``since`` is the time of the chunk's first lease.
    """

    worker: str
    account_id: str
    weight: int = 1
    batch_id: str
    batch_created_at: int
    chunk: int
    wanted: int
    granted: int = 0
    in_use: int = 0
    wanted_soon: int | None = None
    since: float
    expires_at: float
    next_visit_at: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        return self.batch_id, self.chunk

    @property
    def age(self) -> tuple[int, str, int]:
        """Sorts the leases of an account: oldest batch first."""
        return self.batch_created_at, self.batch_id, self.chunk


def live(leases: Iterable[Lease], now: float) -> list[Lease]:
    """The leases that count: a worker that crashed holds nothing soon after."""
    return [lease for lease in leases if lease.expires_at > now]


def held(lease: Lease | None, now: float) -> int:
    """What the holder of ``lease`` may rely on: nothing as soon as another worker may take the lease for expired."""
    return lease.granted if lease is not None and lease.expires_at - SKEW_SECONDS > now else 0


def free(leases: Iterable[Lease], limit: int) -> int:
    """What none of ``leases`` holds of the route's limit."""
    return max(0, limit - sum(lease.granted for lease in leases))


def soon(leases: Iterable[Lease]) -> list[Lease]:
    """The leases as they will be in ``NEWCOMER_SECONDS``: one whose lines run out wants and holds less."""
    ahead = []
    for lease in leases:
        if lease.wanted_soon is not None:
            wanted, granted = min(lease.wanted, lease.wanted_soon), min(lease.granted, lease.wanted_soon)
            lease = msgspec.structs.replace(lease, wanted=wanted, granted=granted)
        ahead.append(lease)
    return ahead


def grant(share: int, holds: int, in_use: int, available: int) -> int:
    """What a worker may have in flight from now on.

    ``share`` is what it should have, ``holds`` what it was granted, and ``available`` what no worker is granted. One
    that holds more than its share gives way as its requests end; one that holds less takes only what is available.
    """
    if share <= holds:
        return min(holds, max(share, in_use))
    return min(share, holds + available)


def part_of_rate(rate: int | None, granted: int, others: Iterable[Lease]) -> float | None:
    """A worker's part of the route's requests or tokens a minute; None where the route sets none.

    It is in proportion to what the worker was granted. Others learn of a newcomer at their next tick, so for a few
    seconds the parts may come to more than the rate, which providers count by the minute.
    """
    if rate is None or not granted:
        return rate
    return rate * granted / (granted + sum(lease.granted for lease in others))


def to_wake(leases: Sequence[Lease], shares: dict[tuple[str, int], int], available: int, now: float) -> list[Lease]:
    """The waiting leases that have a share and would not look again in time, as many as there is room for."""
    woken = []
    waiting = [lease for lease in leases if lease.granted == 0 and shares.get(lease.key, 0) > 0]
    for lease in sorted(waiting, key=lambda lease: (lease.since, lease.age)):
        if available <= 0:
            break
        available -= shares[lease.key]
        if lease.next_visit_at > now + WAKE_SECONDS:
            woken.append(lease)
    return woken
