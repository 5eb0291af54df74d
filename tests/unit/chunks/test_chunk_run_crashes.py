"""A run that follows a crash, or runs beside another one, neither loses nor doubles a line."""

import asyncio
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from nightshift.chunks.chunk import SliceResult
from nightshift.results.line import OutputLine
from nightshift.upstream.answer import Answer

from tests.unit.chunks.fakes import (
    BROKEN,
    LIMITS,
    OK,
    REFUSED,
    CrashError,
    Store,
    Upstream,
    new_run,
    run,
    run_to_the_end,
)


class Chaos:
    """Crashes the run at its ``at``-th call of the store or the upstream, before or ``after`` the call's effect."""

    def __init__(self, store: Store, upstream: Upstream, after: bool) -> None:
        self.at = -1
        self._calls = 0
        self._lock = threading.Lock()
        store.before = (lambda _: None) if after else self._count
        store.after = self._count if after else (lambda _: None)
        upstream.on_send = self._count

    def crash_at(self, call: int) -> None:
        self._calls, self.at = 0, call

    def _count(self, _: object) -> None:
        with self._lock:
            self._calls += 1
            if self._calls == self.at:
                raise CrashError


@given(
    lines=st.integers(1, 30),
    segment_lines=st.integers(1, 10),
    crashes=st.lists(st.integers(1, 45), max_size=5),
    after=st.booleans(),
    held=st.sampled_from([0, 500, LIMITS.held_bytes]),
    body=st.sampled_from([1, 300, LIMITS.body_bytes]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_a_crash_resends_only_unstored_lines(
    lines: int, segment_lines: int, crashes: list[int], after: bool, held: int, body: int, seed: int
) -> None:
    chance = random.Random(seed)
    answers = [OK, OK, OK, Answer(400, b"{}"), REFUSED, BROKEN]
    store, upstream = Store(lines, segment_lines), Upstream(lambda _, __: chance.choice(answers))
    chaos = Chaos(store, upstream, after)
    limits = replace(LIMITS, held_bytes=held, body_bytes=body)
    for crash in [*crashes, -1]:
        safe, sent = store.safe(), len(upstream.sends)
        chaos.crash_at(crash)
        try:
            run_to_the_end(store, upstream, limits=limits)
        except* CrashError:
            assert crash > 0
        assert not safe & set(upstream.sends[sent:]), "a line that was stored was sent again"
    store.assert_each_line_once_and_in_order()
    assert sum(store.counts[-1]) == lines


@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.008, 0.02, 0.04])
def test_a_killed_run_is_continued(seconds: float) -> None:
    store, upstream = Store(40, 8), Upstream(seconds=0.004)

    async def killed() -> None:
        task = asyncio.create_task(new_run(store, upstream.send, concurrency=4).run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(killed())
    safe, sent = store.safe(), len(upstream.sends)
    assert run(store, upstream, concurrency=4).state == "done"
    assert set(upstream.sends[sent:]) == set(range(40)) - safe
    store.assert_each_line_once_and_in_order()


def test_a_sealed_chunk_sends_nothing() -> None:
    store, upstream = Store(10), Upstream()
    run(store, upstream)
    operations: list[str] = []
    store.before = operations.append
    assert run(store, upstream) == SliceResult("done")
    assert len(upstream.sends) == 10
    assert set(operations) <= {"seals", "record_progress"}
    assert store.counts[-1] == (10, 0)


def test_a_stored_segment_is_only_sealed() -> None:
    store, upstream = Store(5), Upstream()

    def no_seals(operation: str) -> None:
        if operation == "seal":
            raise CrashError

    store.before = no_seals
    with pytest.raises(BaseExceptionGroup):
        run(store, upstream)
    # Another worker has stored the same lines as a result part.
    store.write_result_part([OutputLine(n, b'{"id":"%d","custom_id":"id-%d"}' % (n, n), True) for n in range(5)])
    store.before, sent = (lambda _: None), len(upstream.sends)
    assert run(store, upstream).state == "done"
    assert len(upstream.sends) == sent
    store.assert_each_line_once_and_in_order()


def test_a_line_in_two_parts_counts_once() -> None:
    store, upstream = Store(5), Upstream()
    twice = [OutputLine(n, b'{"id":"%d","custom_id":"id-%d"}' % (n, n), True) for n in (1, 3)]
    store.write_result_part(twice)
    store.write_result_part(twice)
    run(store, upstream)
    store.assert_each_line_once_and_in_order()
    assert sorted(upstream.sends) == [0, 2, 4]
    assert store.counts[-1] == (5, 0)


@given(seed=st.integers(0, 1000), held=st.sampled_from([0, LIMITS.held_bytes]))
@settings(max_examples=20)
def test_two_workers_give_each_line_once(seed: int, held: int) -> None:
    store, chance = Store(40, 8), random.Random(seed)
    one = Upstream(lambda _, __: OK, seconds=0.001 * chance.random())
    other = Upstream(lambda _, __: Answer(400, b"{}"), seconds=0.001 * chance.random())

    async def both() -> None:
        later = 0.01 * chance.random()

        async def second() -> None:
            await asyncio.sleep(later)
            await new_run(store, other.send, concurrency=3, limits=limits).run()

        await asyncio.gather(new_run(store, one.send, concurrency=3, limits=limits).run(), second())

    limits = replace(LIMITS, held_bytes=held)
    asyncio.run(both())
    store.assert_each_line_once_and_in_order()
