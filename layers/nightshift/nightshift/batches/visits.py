"""The visits of workers, in the table ``Batches``: pk the batch, sk ``visit_<milliseconds>_<chunk>``.

They show for a week how a batch came along. Nothing else depends on them.
"""

import time

import msgspec

from nightshift.batches.store import CHUNK_ITEM_SECONDS
from nightshift.batches.visit import Visit
from nightshift.core.table import Table

_BATCHES = Table("batches")
_PREFIX = "visit_"


def put(batch_id: str, visit: Visit) -> None:
    """Record a visit."""
    visit_id = f"{_PREFIX}{round(visit.began_at * 1000):013d}_{visit.chunk:04d}"
    kept = {"ttl": int(time.time()) + CHUNK_ITEM_SECONDS}
    _BATCHES.update(batch_id, visit_id, set=msgspec.to_builtins(visit) | kept)


def page(batch_id: str, *, limit: int, after: str | None) -> tuple[list[tuple[str, Visit]], bool]:
    """The batch's visits with their ids, newest first, after the id ``after``; then whether there are more."""
    items, more = _BATCHES.page(
        "#pk = :pk AND begins_with(#sk, :prefix)",
        limit=limit,
        after=(batch_id, after) if after else None,
        ascending=False,
        pk=batch_id,
        prefix=_PREFIX,
    )
    return [(item["sk"], msgspec.convert(item, Visit)) for item in items], more
