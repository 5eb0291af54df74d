"""One event for each status that a batch enters."""

from itertools import permutations

import pytest
from nightshift.events import detail_type, status_event
from nightshift.objects import batch_object
from nightshift.status import STATUSES, Status, timestamp_field

from tests.unit.samples import batch_item


@pytest.mark.parametrize("status", STATUSES)
def test_an_event_tells_account_batch_and_when(status: Status) -> None:
    field = timestamp_field(status)
    batch = batch_item(status=status, **({field: 1_700_000_777} if field else {}))
    event = status_event(batch)
    assert set(event) == {"version", "id", "account_id", "created_at", "batch"}
    assert event["version"] == "1"
    assert event["id"].startswith("evt_")
    assert event["account_id"] == "acct_1"
    assert event["created_at"] == (1_700_000_777 if field else 1_700_000_000)
    assert event["batch"] == batch_object(batch)
    assert detail_type(status) == f"batch.{status}"


def test_an_event_has_one_id_however_often_it_is_told() -> None:
    batch = batch_item(status="completed", completed_at=5)
    assert status_event(batch) == status_event(dict(batch))
    assert status_event(batch)["id"] == status_event(batch | {"usage": {"total_tokens": 1}})["id"]


def test_events_of_other_statuses_and_batches_have_other_ids() -> None:
    events = [
        status_event(batch_item(sk=batch_id, status=status, **{f"{status}_at": 1}))
        for batch_id in ("batch_1", "batch_2")
        for status in STATUSES
    ]
    assert all(one["id"] != other["id"] for one, other in permutations(events, 2))
