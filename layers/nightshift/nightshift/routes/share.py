"""How workers share what their route may have in flight: one pure function of their leases.

Accounts come first: each gets the same for its weight (weighted max-min: what one does not want, the others share),
but never less than a portion, because a worker with a few requests in flight costs as much as a full one. Accounts for
which no portion is left wait, and take turns with those that are served. Within an account the oldest batch is first.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from nightshift.routes.lease import Lease

# The smallest share of an account: requests in flight that are worth a worker.
PORTION = 32
# How long an account of weight 1 is served while others wait.
TURN_SECONDS = 180.0


class Sharing(Struct, frozen=True):
    """Every lease's share, and which accounts wait without any."""

    shares: dict[tuple[str, int], int]
    waiting: frozenset[str]


class _Account(Struct):
    id: str
    leases: list[Lease]
    queued_at: float
    amount: int = 0

    @property
    def weight(self) -> int:
        return max(lease.weight for lease in self.leases)

    @property
    def wanted(self) -> int:
        return sum(lease.wanted for lease in self.leases)

    @property
    def floor(self) -> int:
        return min(PORTION, self.wanted)


def share_out(leases: Iterable[Lease], limit: int, turns: Mapping[str, float], now: float) -> Sharing:
    """Share ``limit`` requests in flight among live leases. ``turns`` has the time at which an account's turn began."""
    accounts = _queue(leases, turns, now)
    _divide(accounts, limit)
    shares: dict[tuple[str, int], int] = {}
    for account in accounts:
        left = account.amount
        for lease in account.leases:
            shares[lease.key] = min(left, lease.wanted)
            left -= shares[lease.key]
    waiting = frozenset(account.id for account in accounts if account.wanted and not account.amount)
    return Sharing(shares, waiting)


def in_turn(account_id: str, weight: int, turns: Mapping[str, float], now: float) -> bool:
    """Whether the account's turn is not over."""
    return account_id in turns and now < turns[account_id] + TURN_SECONDS * weight


def ahead_of(lease: Lease, leases: Iterable[Lease], sharing: Sharing) -> int:
    """How many leases without a share are before ``lease``: round by round, one for each account."""
    rounds: dict[str, int] = {}
    order = []
    for each in sorted(leases, key=lambda each: each.age):
        if sharing.shares.get(each.key) == 0 and each.wanted:
            rounds[each.account_id] = rounds.get(each.account_id, 0) + 1
            order.append((rounds[each.account_id], each.since, each.age, each.key))
    keys = [key for *_, key in sorted(order)]
    return keys.index(lease.key) if lease.key in keys else 0


def _queue(leases: Iterable[Lease], turns: Mapping[str, float], now: float) -> list[_Account]:
    """The accounts in the order in which they are served: those in their turn, then those that queue longest.

    An account queues since it came or since its last turn began, whichever is later. So nobody who comes later, and
    nobody who has had a turn, is served before one that waits.
    """
    by_account: dict[str, list[Lease]] = {}
    for lease in leases:
        by_account.setdefault(lease.account_id, []).append(lease)
    accounts = []
    for account_id, own in by_account.items():
        came_at = min(lease.since for lease in own)
        queued_at = max(turns.get(account_id, came_at), came_at)
        accounts.append(_Account(account_id, sorted(own, key=lambda lease: lease.age), queued_at))

    def place(account: _Account) -> tuple[bool, float, bool, str]:
        serves = any(lease.granted for lease in account.leases)
        served = serves and in_turn(account.id, account.weight, turns, now)
        return not served, account.queued_at, serves, account.id

    return sorted(accounts, key=place)


def _divide(accounts: Sequence[_Account], limit: int) -> None:
    """Set the ``amount`` of each account; ``accounts`` are in order."""
    left = limit
    served = []
    for account in accounts:
        if 0 < account.floor <= left:
            left -= account.floor
            served.append(account)
    _fill(served, min(limit, sum(account.wanted for account in served)))
    left = limit - sum(account.amount for account in served)
    # What is less than a portion is better used by one that waits than by nobody.
    for account in accounts:
        if not account.amount:
            account.amount = min(left, account.wanted)
            left -= account.amount


def _fill(accounts: Sequence[_Account], total: int) -> None:
    """Divide ``total``: to each in proportion to its weight, at least its floor and at most what it wants."""
    if not accounts:
        return

    def at(level: float) -> list[float]:
        return [min(account.wanted, max(account.floor, level * account.weight)) for account in accounts]

    low, high = 0.0, float(max(account.wanted for account in accounts))
    for _ in range(50):
        level = (low + high) / 2
        low, high = (level, high) if sum(at(level)) <= total else (low, level)
    for account, amount in zip(accounts, at(low), strict=True):
        account.amount = int(amount)
    rest = total - sum(account.amount for account in accounts)
    while rest > 0:
        for account in accounts:
            more = rest > 0 and account.amount < account.wanted
            account.amount += more
            rest -= more
