"""What a batch's timeline knows of the visits of workers."""

import time
from typing import Any

import msgspec
import pytest
from nightshift.batches import visits
from nightshift.batches.visit import Visit
from nightshift.engine import visit as engine_visit
from nightshift.input import plan
from nightshift.routes.state import RouteState

from tests.integration.support import (
    Caller,
    Exchange,
    KilledError,
    Server,
    input_lines,
    invoke,
    new_caller,
    route,
    run_chunk,
)


@pytest.fixture(autouse=True)
def a_route(upstream: Server) -> None:
    """Every test has a route that answers."""


def visits_of(caller: Caller, batch_id: str, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = caller("GET", f"/batches/{batch_id}/visits", query=query).json["data"]
    return found


def task_of(batch_id: str) -> dict[str, Any]:
    """What the state machine gives the worker of the batch's only chunk."""
    (task,) = msgspec.to_builtins(plan.read(batch_id))
    return dict(task)


def test_a_visit_is_recorded(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(3))
    assert visits_of(alice, batch_id) == []
    before = time.time()
    run_chunk(task_of(batch_id), retries=2)
    (visit,) = visits_of(alice, batch_id)
    assert visit["id"].startswith("visit_")
    assert before - 1 < visit["began_at"] <= visit["ended_at"] < time.time() + 1
    assert (visit["chunk"], visit["attempt"], visit["outcome"]) == (0, 3, "done")
    assert (visit["requests_sent"], visit["waits_until"], visit["waits_for"]) == (3, None, None)


def test_a_visit_that_was_killed_is_known(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin(input_lines(3))

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(engine_visit, "run_slice", kill)
        with pytest.raises(KilledError):
            run_chunk(task_of(batch_id))
    run_chunk(task_of(batch_id), retries=1)
    second, first = visits_of(alice, batch_id)
    assert (first["attempt"], first["outcome"], first["ended_at"]) == (1, "runs", None)
    assert (second["attempt"], second["outcome"]) == (2, "done")


def test_what_was_sent_again_or_refused_is_counted(alice: Caller, upstream: Server) -> None:
    statuses = iter([500, 429])

    def behave(exchange: Exchange) -> None:
        if status := next(statuses, None):
            exchange.reply(status)
        else:
            exchange.complete()

    upstream.behave = behave
    batch_id = alice.begin(input_lines(1))
    run_chunk(task_of(batch_id))
    (visit,) = visits_of(alice, batch_id)
    assert (visit["requests_sent"], visit["requests_retried"], visit["requests_refused"]) == (3, 1, 1)


def test_a_wait_says_for_what_and_until_when(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    RouteState(route().id).put_control("paused")
    answer = run_chunk(task_of(batch_id))
    (visit,) = visits_of(alice, batch_id)
    assert (visit["outcome"], visit["waits_for"], visit["requests_sent"]) == ("waits", "route", 0)
    assert visit["waits_until"] == pytest.approx(time.time() + answer["wait_seconds"], abs=10)


def test_a_chunk_that_failed_in_every_attempt_is_recorded(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    answer = invoke("finalize_batch", alice.round(batch_id, "failed"))
    (visit,) = visits_of(alice, batch_id)
    assert visit["outcome"] == "failed"
    assert visit["waits_until"] == pytest.approx(time.time() + answer["wait_seconds"], abs=10)


def test_of_a_scout_or_a_whole_map_no_chunk_is_known_to_have_failed(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    scout = alice.round(batch_id, "failed") | {"scout": True}
    assert invoke("finalize_batch", scout)["goes_on"]
    whole = alice.round(batch_id, "failed", "failed")
    assert invoke("finalize_batch", whole)["goes_on"]
    assert visits_of(alice, batch_id) == []


def test_a_visit_that_is_not_recorded_has_worked(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin(input_lines(1))

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(visits, "put", fail)
    assert invoke("finalize_batch", alice.round(batch_id, "failed"))["goes_on"]
    assert run_chunk(task_of(batch_id))["state"] == "done"


def test_visits_are_listed_newest_first_page_by_page(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    for second in range(5):
        for chunk in range(2):
            visits.put(batch_id, Visit(chunk=chunk, began_at=1000.5 + second, ended_at=1001.5 + second, outcome="more"))
    whole = visits_of(alice, batch_id)
    assert [(visit["began_at"], visit["chunk"]) for visit in whole[:3]] == [(1004.5, 1), (1004.5, 0), (1003.5, 1)]
    first = alice("GET", f"/batches/{batch_id}/visits", query={"limit": "4"}).json
    assert (first["data"], first["has_more"]) == (whole[:4], True)
    assert visits_of(alice, batch_id, limit="1000", after=first["last_id"]) == whole[4:]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"after": "batch_1"}, {"after": "visit_1"}, {"after": "visit_#"}]
)
def test_a_wrong_query_is_refused(alice: Caller, query: dict[str, str]) -> None:
    batch_id = alice.begin(input_lines(1))
    assert alice("GET", f"/batches/{batch_id}/visits", query=query).status == 400


def test_visits_are_their_accounts_own(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(1))
    run_chunk(task_of(batch_id))
    assert new_caller("bob")("GET", f"/batches/{batch_id}/visits").status == 404
