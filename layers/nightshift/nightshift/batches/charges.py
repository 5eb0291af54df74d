"""What batches charge to their accounts, in nano-dollars.

| pk          | sk               | holds                                                                        |
| ----------- | ---------------- | ---------------------------------------------------------------------------- |
| ``acct_…``  | ``spend#2026-11``| what the month has cost (``total``) and each of its days (``d01`` to ``d31``) |
| ``batch_…`` | ``chunk#0007``   | ``charged``: what the chunk has charged so far, absolute                     |
| ``batch_…`` | ``charge#end``   | ``charged``: what the end of the batch has added to its chunks' charges      |

A charge changes the absolute amount of its source and the account's sums in one transaction, so that whoever crashes
or runs twice charges nothing twice, and whoever comes after charges what is missing. The items are in ``Batches``.
"""

import time

from msgspec import Struct

from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.spend import DOLLAR, Spend, day_of
from nightshift.batches.record import Batch
from nightshift.batches.store import CHUNK_ITEM_SECONDS
from nightshift.core.errors import NotFoundError
from nightshift.core.table import Table, Update, update_together

# How long a month's sums are kept: for a comparison with the year before.
_SPEND_SECONDS = 400 * 24 * 3600

_TABLE = Table("batches")
_END = "charge#end"


class Source(Struct, frozen=True):
    """What charges: a chunk, as long as ``run_id`` is its last run, or the end of its batch."""

    account_id: str
    batch_id: str
    sk: str
    run_id: str | None = None


class ChunkCharges:
    """What a chunk charges to its account. ``run_id`` is the run that works on it, where each run begins a new one."""

    def __init__(self, account_id: str, batch_id: str, chunk: int, run_id: str | None = None) -> None:
        self._source = Source(account_id, batch_id, f"chunk#{chunk:04d}", run_id)

    def quotas(self) -> Quotas:
        try:
            return accounts.get(self._source.account_id).quotas
        except NotFoundError:
            return Quotas()  # the account was deleted while its batch ran

    def spent(self) -> Spend:
        return spent(self._source.account_id)

    def charged(self) -> int:
        return charged(self._source)

    def charge(self, before: int, after: int, quotas: Quotas | None = None) -> bool:
        return charge(self._source, before, after, quotas)


def spent(account_id: str, now: float | None = None) -> Spend:
    """What the account has spent today and in this month."""
    day = day_of(now or time.time())
    item = _TABLE.get(account_id, _month(day), consistent=True) or {}
    return Spend(item.get(_day(day), 0), item.get("total", 0))


def charged(source: Source) -> int:
    """What the source has charged so far."""
    item = _TABLE.get(source.batch_id, source.sk, consistent=True) or {}
    amount: int = item.get("charged", 0)
    return amount


def charge(source: Source, before: int, after: int, quotas: Quotas | None = None) -> bool:
    """Let the source have charged ``after``, of which ``before`` is charged already; only within ``quotas``, if given.

    False, and nothing is charged, where another caller has charged in between, or the rest of the quotas is less.
    """
    if before == after:
        return True
    now = time.time()
    day = day_of(now)
    conditions, most = _within(quotas, day, after - before)
    was_charged = "#charged = :before" if before else "(attribute_not_exists(#charged) OR #charged = :before)"
    return update_together(
        Update(
            _TABLE,
            (source.batch_id, source.sk),
            "SET #charged = :after, #ttl = :ttl",
            was_charged + (" AND #run = :run" if source.run_id else ""),
            {"before": before, "after": after, "ttl": int(now) + CHUNK_ITEM_SECONDS}
            | ({"run": source.run_id} if source.run_id else {}),
        ),
        Update(
            _TABLE,
            (source.account_id, _month(day)),
            f"ADD #total :more, #{_day(day)} :more SET #ttl = :ttl",
            conditions,
            {"more": after - before, "ttl": int(now) + _SPEND_SECONDS} | most,
        ),
    )


def settle(batch: Batch, cost: int) -> None:
    """Let the batch, which has ended, have charged ``cost`` in all. A second call changes nothing."""
    items = _TABLE.query("#pk = :pk AND begins_with(#sk, :chunk)", consistent=True, pk=batch.id, chunk="chunk#")
    rest = cost - sum(item.get("charged", 0) for item in items)
    source = Source(batch.account_id, batch.id, _END)
    while not charge(source, charged(source), rest):
        pass  # another finalizer has charged in between: the same


def _within(quotas: Quotas | None, day: str, more: int) -> tuple[str | None, dict[str, int]]:
    """The condition that ``more`` is within the quotas, with its values."""
    limits = {"total": quotas.dollars_a_month, _day(day): quotas.dollars_a_day} if quotas else {}
    most = {name: round(limit * DOLLAR) - more for name, limit in limits.items() if limit is not None}
    clauses = [f"(attribute_not_exists(#{name}) OR #{name} <= :{name})" for name in most]
    return " AND ".join(clauses) or None, most


def _month(day: str) -> str:
    return f"spend#{day[:7]}"


def _day(day: str) -> str:
    return f"d{day[8:]}"
