"""Idempotency keys in the table ``IdempotencyKeys``: which batch id belongs to a caller's key, for 24 hours.

One conditional write fixes the id before the batch is created. Each call with the key, at the same time or after a
crash, creates the batch under that id or finds it. The batch's own conditional write prevents a second batch, and its
execution's name prevents a second start. The batch records a digest of the body that created it, because the same key
with another body is a conflict.
"""

import hashlib
import time

from nightshift.core.ids import new_id
from nightshift.core.table import Table

KEY_SECONDS = 24 * 3600

_TABLE = Table("idempotency_keys", keys=("id",))


def forget(account_id: str) -> int:
    """Delete the account's keys. Returns how many there were."""
    found = _TABLE.scan(filter="begins_with(#id, :prefix)", prefix=_prefix(account_id))
    return _TABLE.delete_all((item["id"],) for item in found)


def batch_id_for(account_id: str, key: str) -> str:
    """The id of the batch that ``key`` makes, or has made within the last ``KEY_SECONDS``."""
    record_id = f"{_prefix(account_id)}{hashlib.sha256(key.encode()).hexdigest()}"
    batch_id = new_id("batch")
    now = int(time.time())
    record = {"id": record_id, "batch_id": batch_id, "expiration": now + KEY_SECONDS}
    if _TABLE.put(record, "attribute_not_exists(#id) OR #expiration < :now", now=now):
        return batch_id
    found = _TABLE.get(record_id, consistent=True)
    return str(found["batch_id"]) if found else batch_id


def _prefix(account_id: str) -> str:
    return f"batch#{account_id}#"
