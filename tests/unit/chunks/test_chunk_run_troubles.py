"""Trouble on our side burns nothing: answers are kept until they are stored, and nothing is sent meanwhile."""

import asyncio
import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from nightshift.chunks.run_limits import RunLimits
from nightshift.upstream.answer import Answer

from tests.unit.chunks.fakes import LIMITS, OK, Clock, Store, Upstream, new_run, run


class OutageError(Exception):
    """The store fails."""


def failing(store: Store, times: int, *operations: str) -> Callable[[], int]:
    """Let the first ``times`` calls of ``operations`` fail; how many have."""
    failed = 0

    def before(operation: str) -> None:
        nonlocal failed
        if operation in operations and failed < times:
            failed += 1
            raise OutageError

    store.before = before
    return lambda: failed


@pytest.mark.parametrize("operation", ["seal", "write_result_part", "record_progress", "read"])
@pytest.mark.parametrize("times", [1, 5])
def test_no_line_is_sent_twice_because_of_an_outage(operation: str, times: int) -> None:
    store, upstream = Store(60, 20), Upstream(seconds=0.004)
    failures = failing(store, times, operation)
    assert run(store, upstream, concurrency=4).state == "done"
    assert failures() == times
    assert upstream.tries == dict.fromkeys(range(60), 1)
    store.assert_each_line_once_and_in_order()


@pytest.mark.parametrize("store_seconds", [0.005, 0.05])
def test_nothing_is_sent_while_nothing_can_be_stored(store_seconds: float) -> None:
    store, upstream, clock = Store(400, 400), Upstream(seconds=0.001), Clock(0.05)
    failing(store, 10**9, "seal", "write_result_part")
    limits = replace(LIMITS, store_seconds=store_seconds)
    run_of_it = new_run(store, upstream.send, concurrency=4, clock=clock, ends_at=clock.now + 60, limits=limits)
    with pytest.raises(OutageError):
        asyncio.run(run_of_it.run())
    # Those that were answered before the first failure, and those in flight then.
    assert len(upstream.sends) < 200
    store.before = lambda _: None
    assert run(store, upstream).state == "done"
    store.assert_each_line_once_and_in_order()


def test_the_last_answers_wait_no_longer_than_a_tick() -> None:
    """The invocation ends eight seconds after the last try; a longer pause between two would let it end before."""
    store, upstream = Store(3, 3), Upstream()
    failures = failing(store, 3, "seal")
    limits = replace(LIMITS, first_store_seconds=3600, store_seconds=3600)
    assert run(store, upstream, limits=limits).state == "done"
    assert failures() == 3
    assert RunLimits().tick_seconds < RunLimits().giving_up_seconds


def test_a_batch_that_cannot_be_read_goes_on() -> None:
    store, upstream = Store(40), Upstream(seconds=0.004)
    answers = iter([OutageError, OutageError])

    def in_progress() -> bool:
        for error in answers:
            raise error
        return True

    store.in_progress = in_progress  # type: ignore[method-assign]
    assert run(store, upstream, concurrency=4).state == "done"
    store.assert_each_line_once_and_in_order()
    assert upstream.tries == dict.fromkeys(range(40), 1)


def test_what_the_upstream_has_left_is_honoured() -> None:
    """With no requests left, none is sent until the upstream has new ones."""
    store, upstream = Store(40, 40), Upstream()

    async def send(body: bytes, key: str) -> Answer:
        await upstream.send(body, key)
        return Answer(200, OK.body, reset_after=15.0)

    result = asyncio.run(new_run(store, send, concurrency=1).run())
    assert (result.state, len(upstream.sends)) == ("wait", 1)
    assert 10 < result.wait_seconds <= LIMITS.max_wait_seconds
    assert json.loads(upstream.bodies[0])["n"] == 0
