"""What a chunk's answers cost its account, and how much more they may cost until the account's limit is reached."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from nightshift.accounts import spend as spends
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.spend import Spend
from nightshift.core.log import logger
from nightshift.results.usage import Usage

# Others of the account charge at the same time. Then we read again, at most so often.
_TRIES = 5
# A chunk that may spend no more looks again so often, in case its account's limit was raised.
_PAUSE_SECONDS = 600


class Charges(Protocol):
    """``batches.charges.ChunkCharges``, or a stand-in for tests."""

    def quotas(self) -> Quotas: ...
    def spent(self) -> Spend: ...
    def charged(self) -> int: ...
    def charge(self, before: int, after: int, quotas: Quotas | None = None) -> bool: ...


class Counted(Protocol):
    """See ``ledger.Ledger``."""

    usage: Usage
    batch_usage: Usage


class Meter:
    """Charges an account that has a limit, tick by tick, and says when its chunk may send no more.

    ``price`` gives what tokens cost in nano-dollars: those of all lines, and of them those that a provider's batch API
    has answered. At each tick the chunk is charged what it has cost, and a portion that it may spend until the next
    one. So all workers of the account together spend no more than its limit, and what is in flight when it is reached.

    Example:
        meter = Meter(charges, price)
        meter.follow(ledger)
        if meter.allows(): ...
        await meter.renew()  # at each tick
        meter.settle()       # at the end
    """

    def __init__(
        self, charges: Charges, price: Callable[[Usage, Usage], int], clock: Callable[[], float] = time.time
    ) -> None:
        self._charges = charges
        self._price = price
        self._clock = clock
        self._counted: Counted | None = None
        self._allowed = 0
        self._cost = 0
        self._began = False
        self.spent_up = False

    @property
    def pause(self) -> int:
        """Seconds to wait once the limit is reached: until the next day, but ten minutes at most."""
        return min(_PAUSE_SECONDS, spends.seconds_to_next_day(self._clock()))

    def may_begin(self) -> bool:
        """Whether the account is below its limit; charges nothing. Blocks."""
        left = spends.left(self._charges.quotas(), self._charges.spent())
        return left is None or left > 0

    def follow(self, counted: Counted) -> None:
        """Take the tokens of the finished lines from there."""
        self._counted = counted

    def allows(self) -> bool:
        """Whether another request may be sent."""
        return self._spent() < self._allowed

    async def renew(self) -> None:
        """Charge what the answers have cost, and take the next portion. If that fails, the last one holds."""
        cost = self._spent()
        try:
            self._allowed = await asyncio.to_thread(self._take, cost)
        except Exception:
            logger.exception("account not charged")  # the next tick charges all
        self._cost, self._began = cost, True

    def settle(self) -> None:
        """Charge what the answers have cost, and give back the rest of the portion. Blocks."""
        cost = self._spent()
        try:
            for _ in range(_TRIES):
                if self._charges.charge(self._charges.charged(), cost):
                    return
        except Exception:
            logger.exception("account not charged")  # the chunk's next run or the batch's end does it

    def _spent(self) -> int:
        return self._price(self._counted.usage, self._counted.batch_usage) if self._counted else 0

    def _take(self, cost: int) -> int:
        """Charge ``cost`` and a portion. Returns what the chunk may cost until the next tick."""
        for _ in range(_TRIES):
            quotas = self._charges.quotas()
            before = self._charges.charged()
            left = spends.left(quotas, self._charges.spent())
            # What this chunk has been charged beyond its cost is its own to take again.
            available = spends.DOLLAR if left is None else left + before - cost
            ahead = spends.portion(cost - self._cost if self._began else 0, available)
            self.spent_up = not ahead
            if self._charges.charge(before, cost + ahead, quotas if ahead else None):
                return cost + ahead
        return cost
