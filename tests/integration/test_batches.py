"""Batches in their table: edges, races, progress, lists."""

import time

import pytest
from msgspec.structs import replace
from nightshift.batches import store as batches
from nightshift.batches.progress import AnswerSeconds
from nightshift.batches.record import Batch, BatchUsage, InputTokensDetails, Outcome, OutputTokensDetails, RequestCounts
from nightshift.batches.status import EDGES, TERMINAL, Status
from nightshift.core.errors import NotFoundError
from nightshift.core.table import Table

from tests.integration.support import Caller, move, put_batch, set_batch

ALL_EDGES = [(source, target) for source, targets in EDGES.items() for target in sorted(targets)]
NO_EDGES = [(source, target) for source in EDGES for target in EDGES if target not in EDGES[source]]
USAGE = BatchUsage(1, InputTokensDetails(2), 3, OutputTokensDetails(4), 5)


def put_in(caller: Caller, status: Status) -> Batch:
    """A batch put straight into a status."""
    put_batch(caller, "batch_1")
    set_batch(caller, "batch_1", status=status)
    return batches.get(caller.account_id, "batch_1")


@pytest.mark.parametrize(("source", "target"), ALL_EDGES)
def test_an_edge_is_one_write_of_all_its_fields(alice: Caller, source: Status, target: Status) -> None:
    outcome = Outcome(request_counts=RequestCounts(3, 2, 1), usage=USAGE, error_file_id="file_1")
    moved = batches.transition(put_in(alice, source), target, outcome=outcome)
    assert moved == batches.get(alice.account_id, "batch_1")
    assert moved is not None
    assert (moved.status, moved.usage, moved.request_counts) == (target, USAGE, RequestCounts(3, 2, 1))
    assert abs((moved.entered_at(target) or 0) - time.time()) < 5
    item = Table("batches").get(alice.account_id, "batch_1") or {}
    assert "output_file_id" not in item
    assert ("open" in item) == (target not in TERMINAL)


@pytest.mark.parametrize(("source", "target"), NO_EDGES)
def test_no_other_edge_exists(alice: Caller, source: Status, target: Status) -> None:
    batch = replace(put_batch(alice, "batch_1"), status=source)
    with pytest.raises(ValueError, match="cannot go"):
        batches.transition(batch, target)


@pytest.mark.parametrize("ended", sorted(TERMINAL))
def test_an_ended_batch_never_changes(alice: Caller, ended: Status) -> None:
    before = put_in(alice, ended)
    for source, target in ALL_EDGES:
        assert batches.transition(replace(before, status=source), target) is None
    assert batches.get(alice.account_id, before.id) == before


def test_one_of_many_transitions_wins(alice: Caller) -> None:
    """From one reading of the batch. One after the other, because moto's conditional writes are not atomic."""
    batch = put_in(alice, "in_progress")
    targets: list[Status] = ["finalizing", "expired", "cancelling"]
    won = [moved for target in targets if (moved := batches.transition(batch, target)) is not None]
    assert won == [batches.get(alice.account_id, batch.id)]


def test_a_transition_creates_no_batch(alice: Caller) -> None:
    absent = replace(put_batch(alice, "batch_1"), id="batch_2")
    assert batches.transition(absent, "in_progress") is None
    with pytest.raises(NotFoundError):
        batches.get(alice.account_id, "batch_2")


def test_an_id_is_recorded_once(alice: Caller) -> None:
    first = put_batch(alice, "batch_1")
    assert batches.put(replace(first, input_file_id="file_2")) is False
    assert batches.get(alice.account_id, "batch_1") == first


def test_a_record_survives_the_table(alice: Caller) -> None:
    batch = put_batch(alice, "batch_1", lines=3, metadata={"a": ""}, callback_url="https://x.example")
    assert batch.plan is not None
    assert (batch.plan.lines, batch.plan.route.upstream_model) == (3, "upstream-model")
    assert batches.put(replace(batch, id="batch_2"))
    assert replace(batches.get(alice.account_id, "batch_2"), id="batch_1") == batch


def test_progress_is_absolute_and_never_falls(alice: Caller) -> None:
    batch = replace(put_batch(alice, "batch_1", lines=10), status="in_progress")
    assert batches.progress(batch).counts == RequestCounts(10, 0, 0)
    for completed, failed in ((2, 1), (2, 1), (1, 0), (3, 2)):
        batches.put_progress("batch_1", 0, completed=completed, failed=failed)
    batches.put_progress("batch_1", 1, completed=0, failed=4)
    batches.put_progress("batch_2", 0, completed=9, failed=9)
    assert batches.progress(batch).counts == RequestCounts(10, 3, 6)


def test_progress_has_how_long_answers_took(alice: Caller) -> None:
    batch = replace(put_batch(alice, "batch_1", lines=10), status="in_progress")
    took = AnswerSeconds(1.5, 12.0)
    batches.put_progress("batch_1", 0, completed=2, failed=0, answer_seconds=took)
    batches.put_progress("batch_1", 1, completed=2, failed=0)
    assert batches.progress(batch).answer_seconds == took


def test_the_items_of_chunks_expire() -> None:
    batches.put_progress("batch_1", 0, completed=1, failed=0)
    batches.put_problem("batch_1", 0, "Why.")
    items = list(Table("batches").scan())
    assert len(items) == 2
    assert all(item["ttl"] > time.time() + 86_400 for item in items)


def test_counts_are_none_before_validation(alice: Caller) -> None:
    assert batches.progress(put_batch(alice, "batch_1")).counts is None


def test_stored_counts_are_the_counts(alice: Caller) -> None:
    stored = RequestCounts(3, 2, 1)
    assert batches.progress(put_batch(alice, "batch_2", lines=9, request_counts=stored)).counts == stored


def test_open_batches_are_found_until_they_end(alice: Caller, bob: Caller) -> None:
    put_batch(alice, "batch_old", created_at=100, lines=7)
    put_batch(bob, "batch_older", created_at=50)
    put_batch(alice, "batch_new", created_at=200)
    found = {batch.id: batch for batch in batches.open_of_all(created_before=200)}
    assert {(batch.account_id, batch.id, batch.lines) for batch in found.values()} == {
        (bob.account_id, "batch_older", None),
        (alice.account_id, "batch_old", 7),
    }
    assert found["batch_old"].expires_at == 2_000_000_000
    assert {batch.id for batch in batches.open_of(alice.account_id)} == {"batch_old", "batch_new"}
    move(alice, "batch_old", "cancelling")
    assert len(batches.open_of_all(created_before=200)) == 2
    move(alice, "batch_old", "cancelled")
    move(bob, "batch_older", "failed")
    assert batches.open_of_all(created_before=200) == []


def test_a_long_list_is_read_page_by_page(alice: Caller) -> None:
    for number in range(7):
        put_batch(alice, f"batch_{number}")
    batches.put_progress(alice.account_id, 0, completed=1, failed=0)  # no batch, though in the same partition
    seen: list[str] = []
    after, more = None, True
    while more:
        page, more = batches.list_page(alice.account_id, limit=3, after=after)
        after = page[-1].id
        seen += [batch.id for batch in page]
        put_batch(alice, f"batch_9{len(seen)}")
    assert seen == [f"batch_{number}" for number in (6, 5, 4, 3, 2, 1, 0)]
