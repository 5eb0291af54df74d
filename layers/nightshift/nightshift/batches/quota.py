"""An account's quotas on batches, checked against what it has queued."""

from nightshift.accounts import spend
from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.batches import charges
from nightshift.batches import store as batches
from nightshift.batches.record import OpenBatch


def check(account_id: str, lines: int | None, *, besides: str | None = None) -> None:
    """Check that the account may have one more batch, of ``lines`` lines; None where they are not counted yet.

    A batch of which the lines become known after its creation is checked again then, with its id as ``besides``: it is
    one of the account's active batches already. Two calls at once can both pass, because they read before they write.

    Raises:
        LimitExceededError: ``quota_exceeded``.
    """
    quotas = accounts.get(account_id).quotas
    active = [batch for batch in batches.open_of(account_id) if batch.id != besides]
    if besides is None:
        quotas.check_active(len(active))
        if quotas.limit_spending:
            spend.check(quotas, charges.spent(account_id))
    if lines is not None:
        quotas.check_queued(_queued(active, lines, quotas), lines)


def used(account_id: str) -> tuple[int, int]:
    """The account's active batches, and their lines without an answer."""
    active = batches.open_of(account_id)
    return len(active), sum(batch.lines - batches.answered(batch.id) for batch in active if batch.lines)


def _queued(active: list[OpenBatch], lines: int, quotas: Quotas) -> int:
    """The account's lines without an answer. Answers are counted only until the new batch fits."""
    queued = sum(batch.lines or 0 for batch in active)
    for batch in active:
        if queued + lines <= quotas.queued_requests:
            break
        queued -= batches.answered(batch.id)
    return queued
