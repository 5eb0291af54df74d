"""The edges between statuses are those of docs/contract.md and no others."""

from typing import get_args

import pytest
from nightshift.batches.resources import batch_object
from nightshift.batches.status import EDGES, STATUSES, TERMINAL, Status, sources, timestamp_field

from tests.unit.samples import batch

CONTRACT = {
    ("validating", "in_progress"),
    ("validating", "failed"),
    ("validating", "cancelling"),
    ("in_progress", "finalizing"),
    ("in_progress", "expired"),
    ("in_progress", "cancelling"),
    ("finalizing", "completed"),
    ("finalizing", "cancelling"),
    ("cancelling", "cancelled"),
}


def test_the_edges_are_those_of_the_contract() -> None:
    assert {(source, target) for source, targets in EDGES.items() for target in targets} == CONTRACT


def test_sources_are_the_edges_read_backwards() -> None:
    assert {(source, target) for target in STATUSES for source in sources(target)} == CONTRACT


def test_terminal_statuses_are_never_left() -> None:
    assert {"completed", "failed", "expired", "cancelled"} == TERMINAL
    assert set(STATUSES) == set(get_args(Status)) == set(EDGES)


def test_every_batch_can_end() -> None:
    ending = set(TERMINAL)
    for _ in STATUSES:
        ending |= {source for source, targets in EDGES.items() if targets & ending}
    assert ending == set(STATUSES)


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "validating"])
def test_the_time_of_every_change_is_shown(status: Status) -> None:
    field = timestamp_field(status)
    assert field == f"{status}_at"
    assert getattr(batch_object(batch(**{field: 7})), field) == 7


def test_validating_begins_at_created_at() -> None:
    assert timestamp_field("validating") is None
