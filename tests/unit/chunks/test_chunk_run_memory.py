"""A run bounds what it holds in memory, and loses nothing by it."""

from weakref import WeakSet

import pytest
from msgspec.structs import replace
from nightshift.upstream.answer import Answer
from nightshift.upstream.byte_budget import ByteBudget

from tests.unit.chunks.fakes import (
    LIMITS,
    Store,
    Upstream,
    run,
)


@pytest.mark.parametrize("held", [0, 1_000, 5_000])
def test_spilled_results_are_not_lost(held: int) -> None:
    store, upstream = Store(300, 100), Upstream(seconds=0.002)
    assert run(store, upstream, limits=replace(LIMITS, held_bytes=held)).state == "done"
    store.assert_each_line_once_and_in_order()
    assert upstream.tries == dict.fromkeys(range(300), 1)


@pytest.mark.parametrize("seal_bytes", [0, 5_000])
def test_a_long_segment_is_sealed_from_parts(seal_bytes: int) -> None:
    store, upstream = Store(60, 20), Upstream(seconds=0.002)
    done: list[str] = []
    store.before = done.append
    assert run(store, upstream, limits=replace(LIMITS, seal_bytes=seal_bytes)).state == "done"
    store.assert_each_line_once_and_in_order()
    assert ("result_parts" in done) == (seal_bytes == 0)
    assert store.counts[-1] == (60, 0)


def test_a_full_budget_stops_sending() -> None:
    answer = Answer(200, b'{"object":"chat.completion","text":"%b"}' % (b"a" * 1000))
    store, upstream, budget = Store(60, 20), Upstream(lambda _, __: answer), ByteBudget(5_000)
    full: list[bool] = []
    upstream.on_send = lambda _: full.append(budget.full)
    limits = replace(LIMITS, first_store_seconds=0.1, store_seconds=0.1)
    assert run(store, upstream, budget=budget, concurrency=2, limits=limits).state == "done"
    store.assert_each_line_once_and_in_order()
    assert not any(full)
    assert (budget.reserved, budget.charged) == (0, 0)


class Tracked(Answer, frozen=True, weakref=True):
    """An answer of which is known whether it is in memory."""


def test_no_answer_stays_while_the_next_one_is_awaited() -> None:
    alive: WeakSet[Answer] = WeakSet()

    def answer(_line: int, _tries: int) -> Answer:
        made = Tracked(200, b'{"object":"chat.completion"}')
        alive.add(made)
        return made

    store, upstream = Store(60, 20), Upstream(answer, seconds=0.002)
    found: list[int] = []
    upstream.on_send = lambda _: found.append(len(alive))
    assert run(store, upstream, concurrency=8).state == "done"
    assert found == [0] * 60


def test_a_bound_on_bodies_stops_no_run() -> None:
    store, upstream = Store(60, 5), Upstream()
    loads: list[str] = []
    store.before = loads.append
    assert run(store, upstream, limits=replace(LIMITS, body_bytes=1)).state == "done"
    store.assert_each_line_once_and_in_order()
    assert loads.count("read") == 12


def test_reading_ahead_is_bounded() -> None:
    store, upstream = Store(400, 10), Upstream()
    ahead: list[int] = []
    reads: list[str] = []
    store.before = lambda operation: reads.append(operation) if operation == "read" else None
    upstream.on_send = lambda _: ahead.append(10 * len(reads) - len(upstream.sends))
    run(store, upstream, concurrency=4)
    assert max(ahead) <= 2 * 4 + 10 + 10
