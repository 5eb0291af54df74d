"""A chunk is worked on in slices, and a pause or a count of tries goes on in the next one."""

import asyncio
import json
import time
from itertools import pairwise

import msgspec
import pytest
from nightshift.chunks.chunk import Carry
from nightshift.upstream.answer import MAX_TRIES, Answer

from tests.unit.chunks.fakes import (
    BROKEN,
    LIMITS,
    MARGIN,
    OK,
    Clock,
    Store,
    Upstream,
    new_run,
    run,
    stored,
)


def test_a_slice_starts_only_what_fits() -> None:
    """Nothing is known of the latency yet, so a request may take all of its time."""
    store, upstream, clock = Store(200), Upstream(lambda *_: Answer(failure="broken")), Clock(0.1)
    starts: list[float] = []
    upstream.on_send = lambda _: starts.append(clock.now)
    ends_at = clock.now + MARGIN + 30.0 + 10.0
    result = run(store, upstream, clock=clock, ends_at=ends_at, request_seconds=30.0)
    assert result.state == "more"
    assert 0 < len(upstream.sends) < 200
    # Each of the eight requests that start together advances the clock.
    assert max(starts) + 30.0 + MARGIN <= ends_at + 8 * clock.step


def test_known_latencies_let_a_slice_start_more() -> None:
    store, upstream, clock = Store(500), Upstream(), Clock(0.1)
    starts: list[float] = []
    upstream.on_send = lambda _: starts.append(clock.now)
    ends_at = clock.now + MARGIN + 30.0 + 10.0
    result = run(store, upstream, clock=clock, ends_at=ends_at, request_seconds=30.0)
    assert result.state == "more"
    assert ends_at - 30.0 < max(starts) < ends_at - MARGIN
    assert store.safe() == set(upstream.sends)
    assert sum(result.carry.latencies.values()) >= len(upstream.sends) / 2


def test_a_late_answer_is_sent_again() -> None:
    store, upstream = Store(3), Upstream(lambda n, tries: OK if n or tries > 2 else BROKEN)

    async def send(body: bytes, request_id: str) -> Answer:
        answer = await upstream.send(body, request_id)
        if json.loads(body)["n"] == 0 and upstream.tries[0] == 2:
            await asyncio.Event().wait()  # like an answer that waits for the byte budget
        return answer

    ends_at = time.time() + MARGIN + 1.0
    result = asyncio.run(new_run(store, send, ends_at=ends_at, request_seconds=0.1).run())
    assert (result.state, result.carry.lines) == ("more", {0: (1, 0.0)})
    assert store.safe() == {1, 2}
    assert run(store, upstream, carry=result.carry).state == "done"
    store.assert_each_line_once_and_in_order()
    assert upstream.tries == {0: 3, 1: 1, 2: 1}


def test_slices_finish_the_chunk() -> None:
    store, upstream, clock = Store(100), Upstream(), Clock(0.1)
    slices = 0
    carry = Carry()
    while True:
        ends_at = clock.now + MARGIN + 30.0 + 10.0
        result = run(store, upstream, clock=clock, ends_at=ends_at, request_seconds=30.0, carry=carry)
        carry, slices = result.carry, slices + 1
        if result.state == "done":
            break
        assert slices < 50
    assert slices > 1
    assert upstream.tries == dict.fromkeys(range(100), 1)
    store.assert_each_line_once_and_in_order()


def test_a_slice_without_time_sends_nothing() -> None:
    store, upstream = Store(5), Upstream()
    result = run(store, upstream, ends_at=time.time() + MARGIN, request_seconds=10.0)
    assert (result.state, upstream.sends) == ("more", [])


def test_a_late_start_has_a_part_of_the_time_left() -> None:
    """Otherwise a chunk whose results take long to read would never send anything."""
    store, upstream = Store(5), Upstream()
    assert run(store, upstream, ends_at=time.time() + MARGIN + 9.0, request_seconds=600.0).state == "done"


@pytest.mark.parametrize(("asked", "seconds"), [(6.5, (6, 7)), (19.0, (18, 19)), (600.0, (LIMITS.max_wait_seconds,))])
def test_a_long_pause_is_a_wait_state(asked: float, seconds: tuple[int, ...]) -> None:
    store = Store(5)
    result = run(store, Upstream(lambda _, __: Answer(429, b"{}", retry_after=asked)))
    assert result.state == "wait"
    assert result.wait_seconds in seconds


def test_a_short_pause_stays_in_the_slice() -> None:
    store = Store(1)
    times: list[float] = []
    upstream = Upstream(lambda _, tries: Answer(429, b"{}", retry_after=0.3) if tries == 1 else OK)
    upstream.on_send = lambda _: times.append(time.monotonic())
    assert run(store, upstream).state == "done"
    assert times[1] - times[0] >= 0.3


def test_a_pause_holds_new_lines_too() -> None:
    """Of four requests in flight the third refusal says that it is not one line's alone."""
    store = Store(40, 40)
    upstream = Upstream(lambda _, __: Answer(429, b"{}", retry_after=0.3))
    times: list[float] = []
    upstream.on_send = lambda _: times.append(time.monotonic())
    assert run(store, upstream, concurrency=4, ends_at=time.time() + MARGIN + 0.2).state == "more"
    assert len(times) <= 4 + 3


def test_a_wait_ends_by_the_deadline() -> None:
    store = Store(5)
    upstream = Upstream(lambda _, __: Answer(503, b"{}", retry_after=500.0))
    result = run(store, upstream, expires_at=time.time() + 7)
    assert result.state == "wait"
    assert result.wait_seconds <= 7


def test_a_waiting_line_holds_up_no_other() -> None:
    store = Store(20)
    upstream = Upstream(lambda line, _: Answer(500, b"{}", retry_after=100.0) if line == 3 else OK)
    assert run(store, upstream).state == "wait"
    assert store.safe() == set(range(20)) - {3}


def test_carried_refusals_start_slowly() -> None:
    store, upstream = Store(50, 50), Upstream(lambda _, __: Answer(429, b"{}", retry_after=30.0))
    refused = run(store, upstream)
    assert refused.carry.level.limit == 0.5
    peaks: list[int] = []
    again = Upstream(seconds=0.002)
    again.on_send = lambda _: peaks.append(again.in_flight)
    clock = Clock()
    clock.now = time.time() + 31
    assert run(store, again, carry=refused.carry, clock=clock).state == "done"
    assert 4 <= max(peaks) < 8


def test_tries_are_counted_over_slices() -> None:
    store, upstream, clock = Store(1), Upstream(lambda _, __: Answer(500, b"{}", retry_after=15.0)), Clock()
    carry = Carry()
    for _ in range(MAX_TRIES):
        result = run(store, upstream, carry=carry, clock=clock)
        carry = stored(result.carry)
        clock.now += result.wait_seconds + 1
    assert result.state == "done"
    assert upstream.tries == {0: MAX_TRIES}


def test_a_pause_lasts_over_slices() -> None:
    """Waits are split into short ones, so that a cancel is noticed; no request is sent between them."""
    store, clock = Store(5), Clock()
    upstream = Upstream(lambda _, tries: Answer(429, b"{}", retry_after=60.0) if tries == 1 else OK)
    started, sent_at = clock.now, []
    upstream.on_send = lambda _: sent_at.append(clock.now - started)
    result = run(store, upstream, clock=clock)
    while result.state == "wait":
        clock.now += result.wait_seconds
        result = run(store, upstream, clock=clock, carry=stored(result.carry))
    assert result.state == "done"
    assert [at for at in sent_at if 1 < at < 59] == []


@pytest.mark.parametrize("refusal", [Answer(429, b"{}", retry_after=60.0), Answer(500, b"{}", retry_after=60.0)])
def test_a_lines_own_wait_lasts_over_slices(refusal: Answer) -> None:
    """A single refusal among many answers delays only its own line."""
    store, clock = Store(40), Clock()
    upstream = Upstream(lambda n, tries: refusal if n == 7 and tries <= 2 else OK)
    sent_at = []
    upstream.on_send = lambda n: sent_at.append(clock.now) if n == 7 else None
    result = run(store, upstream, clock=clock, concurrency=40)
    while result.state == "wait":
        clock.now += result.wait_seconds
        result = run(store, upstream, clock=clock, concurrency=40, carry=stored(result.carry))
    assert result.state == "done"
    assert len(sent_at) == 3
    assert all(later - earlier >= 60.0 for earlier, later in pairwise(sent_at))
    store.assert_each_line_once_and_in_order()


def test_the_carry_fits_into_a_state() -> None:
    store, upstream = Store(3_000, 1_000), Upstream(lambda _, __: Answer(500, b"{}", retry_after=15.0))
    result = run(store, upstream, concurrency=256)
    assert result.state == "wait"
    assert len(result.carry.lines) == 3_000
    assert len(msgspec.json.encode(result.carry)) < 200_000
