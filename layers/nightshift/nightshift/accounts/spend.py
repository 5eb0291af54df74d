"""What an account has spent, against its limits for a day and a month (UTC).

Amounts are nano-dollars, so that sums of tokens at their prices are exact.
"""

import time

import msgspec

from nightshift.accounts.quotas import Quotas, exceeded

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
    if found := _reached(quotas, spend):
        limit, _, period = found
        raise exceeded(
            f"The account has spent its limit of ${limit:.2f} a {period}. Wait for the next {period} (UTC), or ask the "
            "operator for a higher limit."
        )


def reached(quotas: Quotas, spend: Spend) -> str | None:
    """The limit that the account has reached and what it has spent, such as ``$1.12 of $1.00 a day``, if it has."""
    found = _reached(quotas, spend)
    return f"${found[1] / DOLLAR:.2f} of ${found[0]:.2f} a {found[2]}" if found else None


def day_of(now: float) -> str:
    """The day (UTC), such as ``2026-11-27``."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def seconds_to_next_day(now: float) -> int:
    return 86_400 - int(now) % 86_400


def _reached(quotas: Quotas, spend: Spend) -> tuple[float, int, str] | None:
    """The limit that is reached, what was spent, and its period: the month's first, because it lasts longer."""
    limits = ((quotas.dollars_a_month, spend.month, "month"), (quotas.dollars_a_day, spend.day, "day"))
    for limit, spent, period in limits:
        if limit is not None and spent >= round(limit * DOLLAR):
            return limit, spent, period
    return None
