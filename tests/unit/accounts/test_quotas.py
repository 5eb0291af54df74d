"""An account's own quotas, the defaults, and the errors at a limit."""

from collections.abc import Callable

import pytest
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.record import Account
from nightshift.core.errors import LimitExceededError

QUOTAS = Quotas(active_batches=2, queued_requests=10, stored_bytes=100)


def test_a_quota_of_its_own_replaces_the_default() -> None:
    account = Account(id="acct_1", name="a", created_at=1, own_quotas={"active_batches": 3})
    assert account.quotas == Quotas(active_batches=3)


def test_what_fits_is_allowed() -> None:
    QUOTAS.check_active(1)
    QUOTAS.check_queued(queued=4, more=6)
    QUOTAS.check_storage(stored=40, more=60)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: QUOTAS.check_active(2), "The account has 2 active batches; the limit is 2."),
        (lambda: QUOTAS.check_queued(4, 7), "The account has 4 queued requests, and the batch has 7; the limit is 10."),
        (
            lambda: QUOTAS.check_storage(40, 61),
            "The account stores 40 bytes and cannot store 61 more; the limit is 100.",
        ),
    ],
)
def test_what_exceeds_a_limit_is_refused(check: Callable[[], None], message: str) -> None:
    with pytest.raises(LimitExceededError) as refused:
        check()
    assert refused.value.message.startswith(message)
    assert refused.value.code == "quota_exceeded"
