"""What tests and benchmarks do with a batch that waits for its provider, so that no hour need pass."""

import time
from typing import Any

from msgspec.structs import replace
from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.core.table import Table
from nightshift.submissions.store import SubmissionStore

from tests.e2e.conftest import Local, wait_for


def record_of(batch_id: str) -> Batch:
    """The record of an open batch."""
    found = {each.id: each.account_id for each in batches.open_of_all(created_before=2**31)}
    return batches.get(found[batch_id], batch_id)


def change_submission(batch_id: str, **changes: Any) -> None:
    """Change the submission of a batch of one chunk, as a worker does."""
    store = SubmissionStore(batch_id, 0, "test")
    wait_for(lambda: store.claim(time.time()))
    submission = store.load()
    assert submission is not None
    store.save(replace(submission, **changes))
    store.release()


def sweep_looks(local: Local, batch_id: str) -> None:
    """Let a look at the provider of a sleeping batch be due, and the sweep find that."""
    change_submission(batch_id, not_before=0.0)
    now = int(time.time())
    due = {"look_at": now - 1, "created_at": now - 200}
    Table("batches").update(record_of(batch_id).account_id, batch_id, set=due)
    local.invoke("Sweep", {})
