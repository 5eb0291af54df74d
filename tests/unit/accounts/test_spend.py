"""What an account may still spend."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.spend import DOLLAR, Spend, check, day_of, left, portion, seconds_to_next_day
from nightshift.core.errors import LimitExceededError

NOON = 1_795_780_800  # 2026-11-27T12:00:00Z


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        (Quotas(), None),
        (Quotas(dollars_a_day=3), 2 * DOLLAR),
        (Quotas(dollars_a_month=30), 20 * DOLLAR),
        (Quotas(dollars_a_day=3, dollars_a_month=10.5), DOLLAR // 2),
        (Quotas(dollars_a_day=0), -DOLLAR),
    ],
)
def test_the_tighter_limit_counts(quotas: Quotas, expected: int | None) -> None:
    assert left(quotas, Spend(day=DOLLAR, month=10 * DOLLAR)) == expected


@given(st.integers(0, 10**12), st.integers(-(10**12), 10**12))
def test_a_portion_is_within_what_is_available(lately: int, available: int) -> None:
    taken = portion(lately, available)
    assert 0 <= taken <= max(0, available)
    assert taken > 0 or available <= 0


@pytest.mark.parametrize(
    ("quotas", "words"),
    [
        (Quotas(dollars_a_day=1), r"\$1.00 a day. Wait for the next day"),
        (Quotas(dollars_a_day=1, dollars_a_month=2.5), r"\$2.50 a month. Wait for the next month"),
        (Quotas(dollars_a_month=0), r"\$0.00 a month"),
    ],
)
def test_who_has_spent_the_limit_is_told(quotas: Quotas, words: str) -> None:
    with pytest.raises(LimitExceededError, match=words) as refused:
        check(quotas, Spend(day=DOLLAR, month=3 * DOLLAR))
    assert refused.value.code == "quota_exceeded"


def test_who_has_not_may_begin() -> None:
    check(Quotas(), Spend(DOLLAR, DOLLAR))
    check(Quotas(dollars_a_day=1), Spend(DOLLAR - 1, 50 * DOLLAR))


def test_days_are_those_of_utc() -> None:
    assert day_of(NOON) == "2026-11-27"
    assert seconds_to_next_day(NOON) == 12 * 3600
    assert seconds_to_next_day(NOON + 12 * 3600 - 1) == 1
    assert seconds_to_next_day(NOON + 12 * 3600) == 24 * 3600
