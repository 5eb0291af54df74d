"""What an account has spent, against its limits for a day and a month (UTC).

Amounts are nano-dollars, so that sums of tokens at their prices are exact.
"""

import time

import msgspec

from nightshift.accounts.quotas import Quotas, exceeded
from nightshift.core.errors import LimitExceededError

DOLLAR = 1_000_000_000
# The least that a worker asks for at once: a cent.
_LEAST_PORTION = DOLLAR // 100


class Spend(msgspec.Struct, frozen=True):
    """What an account has spent today and in this month, with what its workers may spend until their next tick."""

    day: int = 0
    month: int = 0


def left(quotas: Quotas, spend: Spend) -> int | None:
    """What the account may still spend, less than 0 where it has spent more; None without a limit."""
    limits = ((quotas.dollars_a_day, spend.day), (quotas.dollars_a_month, spend.month))
    return min((round(limit * DOLLAR) - spent for limit, spent in limits if limit is not None), default=None)


def portion(spent_lately: int, available: int) -> int:
    """What a worker may spend until its next tick, when it has spent ``spent_lately`` since its last one.

    Twice as much, so that it doubles what it takes for as long as it runs dry. What it does not spend it gives back.
    """
    return max(0, min(available, max(_LEAST_PORTION, 2 * spent_lately)))


def check(quotas: Quotas, spend: Spend) -> None:
    """Check that the account may begin to spend more.

    Raises:
        LimitExceededError: ``quota_exceeded``.
    """
    rest = left(quotas, spend)
    if rest is not None and rest <= 0:
        raise _spent(quotas, spend)


def day_of(now: float) -> str:
    """The day (UTC), such as ``2026-11-27``."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def seconds_to_next_day(now: float) -> int:
    return 86_400 - int(now) % 86_400


def _spent(quotas: Quotas, spend: Spend) -> LimitExceededError:
    month = quotas.dollars_a_month
    is_month = month is not None and spend.month >= round(month * DOLLAR)
    limit, period = (month, "month") if is_month else (quotas.dollars_a_day, "day")
    return exceeded(
        f"The account has spent its limit of ${limit:.2f} a {period}. Wait for the next {period} (UTC), or ask the "
        "operator for a higher limit."
    )
