"""A run through a chunk: every line once and in order, whatever the upstream, the store or the clock does."""

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.engine import pacing
from nightshift.engine.chunk_run import Carry, Chunk, ChunkRun, Deadlines, SliceResult
from nightshift.engine.run_limits import RunLimits
from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.parts import decode_part, encode_part
from nightshift.results.seals import SealSummary
from nightshift.results.seals import seal as seal_lines
from nightshift.upstream.answer import MAX_TRIES, Answer, Failure
from nightshift.upstream.byte_budget import ByteBudget

from tests.unit.samples import request_line

OK = Answer(200, b'{"object":"chat.completion","model":"upstream"}')
REFUSED = Answer(429, b'{"error":{}}')
BROKEN = Answer(500, b'{"error":{"message":"oops"}}')


class CrashError(Exception):
    """What a test makes the store or the upstream raise: the worker dies there."""


# Short times, so that a test stores as often as a run of minutes does.
LIMITS = RunLimits(first_store_seconds=0.005, store_seconds=0.005, last_answers_seconds=0.05)
MARGIN = LIMITS.slice_margin_seconds


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BASE_DELAY", 0.001)
    monkeypatch.setattr(pacing, "MAX_DELAY", 0.004)


class Store:
    """A chunk of ``lines`` lines in memory, kept as the bucket and the table store it."""

    def __init__(self, lines: int, segment_lines: int = 5) -> None:
        self.lines = lines
        texts = [request_line(f"id-{n}", body={"n": n}) + b"\n" for n in range(lines)]
        self.content = b"".join(texts)
        ends = [sum(map(len, texts[: n + 1])) for n in range(lines)]
        self.segments = [
            Segment(ends[first - 1] if first else 0, ends[min(first + segment_lines, lines) - 1], first, count)
            for first in range(0, lines, segment_lines)
            if (count := min(segment_lines, lines - first))
        ]
        self.parts: list[bytes] = []
        self.sealed: dict[int, tuple[bytes, SealSummary]] = {}
        self.counts: list[tuple[int, int]] = []
        self.is_in_progress = True
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    def read(self, segment: Segment) -> bytes:
        self.before("read")
        return self.content[segment.start : segment.end]

    def seals(self, segments: list[Segment]) -> list[SealSummary | None]:
        self.before("seals")
        return [self.sealed[s.first_line][1] if s.first_line in self.sealed else None for s in segments]

    def result_parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        for part in list(self.parts):
            self.before("result_parts")
            yield [line for _, line in decode_part(part) if first_line <= line.number < end_line]

    def write_result_part(self, lines: list[OutputLine]) -> None:
        self.before("write_result_part")
        self.parts.append(encode_part(lines))
        self.after("write_result_part")

    def seal(self, segment: Segment, lines: list[OutputLine]) -> SealSummary:
        self.before("seal")
        content, summary = seal_lines(lines)
        if summary.completed + summary.failed != segment.lines:
            raise ValueError(f"{summary.completed + summary.failed} lines for a segment of {segment.lines}")
        with self._lock:
            first = self.sealed.setdefault(segment.first_line, (content, summary))
        self.after("seal")
        return first[1]

    def seal_from_parts(self, segment: Segment) -> SealSummary:
        span = (segment.first_line, segment.first_line + segment.lines)
        return self.seal(segment, [line for part in self.result_parts(*span) for line in part])

    def record_progress(self, completed: int, failed: int) -> None:
        self.before("record_progress")
        self.counts.append((completed, failed))
        self.after("record_progress")

    def in_progress(self) -> bool:
        return self.is_in_progress

    def safe(self) -> set[int]:
        """The lines that no run need send again."""
        in_parts = {line.number for part in list(self.parts) for _, line in decode_part(part)}
        return in_parts | {n for s in self.segments if s.first_line in self.sealed for n in _numbers(s)}

    def results(self) -> list[dict[str, Any]]:
        """All sealed lines in the order of the input; where two lines are one, this fails."""
        lines = [
            json.loads(line)
            for s in self.segments
            if s.first_line in self.sealed
            for line in self.sealed[s.first_line][0].splitlines()
        ]
        return sorted(lines, key=lambda line: int(line["custom_id"].removeprefix("id-")))

    def assert_each_line_once_and_in_order(self) -> None:
        expected = [f"id-{n}" for n in range(self.lines)]
        assert [line["custom_id"] for line in self.results()] == expected
        assert len({line["id"] for line in self.results()}) == self.lines
        for content, summary in self.sealed.values():
            for half in (content[: summary.answered_bytes], content[summary.answered_bytes :]):
                numbers = [int(json.loads(line)["custom_id"].removeprefix("id-")) for line in half.splitlines()]
                assert numbers == sorted(numbers)


def _numbers(segment: Segment) -> range:
    return range(segment.first_line, segment.first_line + segment.lines)


class Upstream:
    """Answers line ``n`` with what ``script(n, tries)`` says; ``tries`` counts from 1."""

    def __init__(self, script: Callable[[int, int], Answer] = lambda _, __: OK, seconds: float = 0.0) -> None:
        self.script = script
        self.seconds = seconds
        self.sends: list[int] = []
        self.bodies: list[bytes] = []
        self.request_ids: defaultdict[int, set[str]] = defaultdict(set)
        self.in_flight = self.peak = 0
        self.on_send: Callable[[int], None] = lambda _: None

    @property
    def tries(self) -> Counter[int]:
        return Counter(self.sends)

    async def send(self, body: bytes, request_id: str) -> Answer:
        line = int(json.loads(body)["n"])
        self.sends.append(line)
        self.bodies.append(body)
        self.request_ids[line].add(request_id)
        tries = self.tries[line]
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            self.on_send(line)
            await asyncio.sleep(self.seconds)
            return self.script(line, tries)
        finally:
            self.in_flight -= 1


@dataclass
class Sender:
    """An upstream that is one function."""

    answer: Callable[[bytes, str], Awaitable[Answer]]

    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        return await self.answer(body, idempotency_key)


def new_run(
    store: Store,
    send: Callable[[bytes, str], Awaitable[Answer]],
    *,
    concurrency: int = 8,
    ends_at: float | None = None,
    expires_at: float | None = None,
    request_seconds: float = 10.0,
    limits: RunLimits = LIMITS,
    **changes: Any,
) -> ChunkRun:
    now = changes.get("clock", time.time)()
    return ChunkRun(
        Chunk("batch_0123", "shown", "sent", store.segments),
        store,
        Sender(send),
        Deadlines(ends_at or now + 900, expires_at or now + 86_400, request_seconds),
        concurrency=concurrency,
        limits=limits,
        **{"rng": random.Random(1), "budget": ByteBudget(2**25), **changes},
    )


def stored(carry: Carry) -> Carry:
    """The carry as it comes back from Step Functions."""
    state = json.loads(json.dumps(msgspec.to_builtins(carry, str_keys=True)))
    return msgspec.convert(state, Carry, str_keys=True)


def run(store: Store, upstream: Upstream, **changes: Any) -> SliceResult:
    return asyncio.run(new_run(store, upstream.send, **changes).run())


def run_to_the_end(store: Store, upstream: Upstream, **changes: Any) -> list[SliceResult]:
    """As the state machine does, but without waiting."""
    results = [run(store, upstream, **changes)]
    while results[-1].state != "done":
        assert len(results) < 100, "the chunk never ends"
        assert len(msgspec.json.encode(results[-1].carry)) < 256 * 1024
        results.append(run(store, upstream, carry=stored(results[-1].carry), **changes))
    return results


# --- all is well -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [1, 4, 5, 6, 100])
def test_every_line_is_answered_once_in_order(lines: int) -> None:
    store, upstream = Store(lines), Upstream()
    assert run(store, upstream) == SliceResult("done")
    store.assert_each_line_once_and_in_order()
    assert sorted(upstream.sends) == list(range(lines))
    assert store.counts[-1] == (lines, 0)


def test_each_side_sees_its_own_model_name() -> None:
    store, upstream = Store(3), Upstream()
    run(store, upstream)
    assert {json.loads(body)["model"] for body in upstream.bodies} == {"sent"}
    assert {line["response"]["body"]["model"] for line in store.results()} == {"shown"}


def test_all_tries_of_a_line_have_one_request_id() -> None:
    store, upstream = Store(3), Upstream(lambda _, tries: OK if tries == 3 else BROKEN)
    run(store, upstream)
    assert {line["id"] for line in store.results()} == set().union(*upstream.request_ids.values())
    assert all(len(ids) == 1 for ids in upstream.request_ids.values())


@pytest.mark.parametrize("concurrency", [1, 2, 7, 64])
def test_requests_in_flight_reach_the_limit(concurrency: int) -> None:
    store, upstream = Store(200, 50), Upstream(seconds=0.002)
    run(store, upstream, concurrency=concurrency)
    assert upstream.peak == concurrency


def test_failures_never_pass_the_limit() -> None:
    chance = random.Random(7)
    answers = [OK, OK, REFUSED, BROKEN, Answer(failure="timeout"), Answer(failure="connect")]
    store, upstream = Store(150), Upstream(lambda _, __: chance.choice(answers), seconds=0.001)
    run_to_the_end(store, upstream, concurrency=16)
    assert upstream.peak <= 16
    store.assert_each_line_once_and_in_order()


def test_late_answers_come_out_in_order() -> None:
    store = Store(60, 20)

    async def send(body: bytes, _: str) -> Answer:
        await asyncio.sleep(0.001 * ((61 - json.loads(body)["n"]) % 7))
        return OK

    asyncio.run(new_run(store, send).run())
    store.assert_each_line_once_and_in_order()


def test_segments_are_sealed_while_others_run() -> None:
    store, upstream = Store(20, 5), Upstream(seconds=0.01)
    seen: list[int] = []
    upstream.on_send = lambda line: seen.append(len(store.sealed)) if line == 19 else None
    run(store, upstream, concurrency=2)
    assert seen[0] >= 2


def test_progress_counts_stored_lines_only() -> None:
    store, upstream = Store(50, 10), Upstream(seconds=0.003)
    behind: list[tuple[int, int]] = []

    def check(operation: str) -> None:
        if operation == "record_progress" and sum(store.counts[-1]) > len(store.safe()):
            behind.append(store.counts[-1])

    store.after = check
    run(store, upstream, concurrency=3)
    assert not behind
    totals = [sum(count) for count in store.counts]
    assert totals == sorted(totals)


# --- what an answer means for its line -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_a_server_error_is_final_after_five_tries(status: int) -> None:
    store, upstream = Store(2), Upstream(lambda _, __: Answer(status, BROKEN.body))
    assert run(store, upstream).state == "done"
    assert upstream.tries == {0: MAX_TRIES, 1: MAX_TRIES}
    for line in store.results():
        assert line["response"]["status_code"] == status
        assert line["response"]["body"] == {"error": {"message": "oops"}}
        assert line["error"] is None
    assert store.counts[-1] == (0, 2)


def test_a_passing_server_error_leaves_no_trace() -> None:
    store, upstream = Store(10), Upstream(lambda _, tries: BROKEN if tries < MAX_TRIES else OK)
    run(store, upstream)
    assert store.counts[-1] == (10, 0)


@pytest.mark.parametrize("refusal", [REFUSED, Answer(503, b"{}"), Answer(failure="connect")])
def test_a_refusal_is_retried_without_end(refusal: Answer) -> None:
    store, upstream = Store(6), Upstream(lambda _, tries: refusal if tries <= 3 * MAX_TRIES else OK)
    run_to_the_end(store, upstream)
    store.assert_each_line_once_and_in_order()
    assert all(tries == 3 * MAX_TRIES + 1 for tries in upstream.tries.values())
    assert store.counts[-1] == (6, 0)


def test_a_refusal_is_no_try() -> None:
    store, upstream = Store(1), Upstream(lambda _, tries: REFUSED if tries % 2 else BROKEN)
    run_to_the_end(store, upstream)
    assert upstream.tries == {0: 2 * MAX_TRIES}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 302])
def test_other_errors_are_final_at_once(status: int) -> None:
    store, upstream = Store(3), Upstream(lambda _, __: Answer(status, b'{"error":{"message":"no"}}'))
    run(store, upstream)
    assert upstream.tries == {0: 1, 1: 1, 2: 1}
    assert {line["response"]["status_code"] for line in store.results()} == {status}
    assert store.counts[-1] == (0, 3)


@pytest.mark.parametrize(
    ("failure", "tries", "code"),
    [
        ("timeout", MAX_TRIES, "request_timeout"),
        ("broken", MAX_TRIES, "upstream_unreachable"),
        ("not_json", MAX_TRIES, "upstream_unreachable"),
        ("too_long", 1, "upstream_unreachable"),
    ],
)
def test_a_failed_line_has_its_code(failure: Failure, tries: int, code: str) -> None:
    store, upstream = Store(2), Upstream(lambda _, __: Answer(failure=failure))
    run(store, upstream)
    assert upstream.tries == {0: tries, 1: tries}
    for line in store.results():
        assert line["response"] is None
        assert line["error"]["code"] == code


def test_answered_and_failed_lines_are_counted_apart() -> None:
    store = Store(30, 7)
    run(store, Upstream(lambda line, _: OK if line % 3 else Answer(400, b"{}")))
    store.assert_each_line_once_and_in_order()
    assert store.counts[-1] == (20, 10)


# --- crashes -------------------------------------------------------------------------------------------------------


class Chaos:
    """Crashes the run at its ``at``-th call of store or upstream."""

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


def test_a_sealed_chunk_reads_and_sends_nothing() -> None:
    store, upstream = Store(10), Upstream()
    run(store, upstream)
    operations: list[str] = []
    store.before = operations.append
    assert run(store, upstream) == SliceResult("done")
    assert len(upstream.sends) == 10
    assert set(operations) <= {"seals", "record_progress"}
    assert store.counts[-1] == (10, 0)


def test_a_stored_segment_is_sealed_without_sending() -> None:
    store, upstream = Store(5), Upstream()

    def no_seals(operation: str) -> None:
        if operation == "seal":
            raise CrashError

    store.before = no_seals
    with pytest.raises(ExceptionGroup):
        run(store, upstream)
    # What that run had in hand when it could not seal is kept by one that finds it in a part.
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


# --- the end of a batch --------------------------------------------------------------------------------------------


def test_a_cancel_stops_sending_and_keeps_answers() -> None:
    store, upstream = Store(500, 50), Upstream(seconds=0.002)

    def cancel_after_some(line: int) -> None:
        if len(upstream.sends) == 60:
            store.is_in_progress = False

    upstream.on_send = cancel_after_some
    result = run(store, upstream, concurrency=10)
    assert result == SliceResult("done")
    assert len(upstream.sends) < 300
    assert len(store.safe()) == len(upstream.sends)  # also those in flight, which had time to finish
    assert store.counts[-1] == (len(upstream.sends), 0)


def test_a_cancel_waits_a_bounded_time() -> None:
    store = Store(40)
    answered = 0

    async def send(_: bytes, __: str) -> Answer:
        nonlocal answered
        if answered == 12:
            store.is_in_progress = False
            await asyncio.sleep(60)
        answered += 1
        return OK

    started = time.monotonic()
    assert asyncio.run(new_run(store, send).run()) == SliceResult("done")
    assert time.monotonic() - started < 3
    assert len(store.safe()) == 12


def test_an_expired_batch_sends_nothing() -> None:
    store, upstream = Store(10), Upstream()
    assert run(store, upstream, expires_at=time.time() - 1) == SliceResult("done")
    assert upstream.sends == []


def test_an_expiry_midway_keeps_answers() -> None:
    store, upstream = Store(2_000, 50), Upstream(seconds=0.01)
    deadline = time.time() + 0.1
    late: list[int] = []
    upstream.on_send = lambda line: late.append(line) if time.time() > deadline + 0.01 else None
    assert run(store, upstream, concurrency=10, expires_at=deadline) == SliceResult("done")
    assert late == []
    assert 0 < len(upstream.sends) < 2_000
    assert len(store.safe()) == len(upstream.sends)


def test_an_expiry_ends_a_refused_batch() -> None:
    store, upstream = Store(10), Upstream(lambda _, __: REFUSED)
    assert run_to_the_end(store, upstream, expires_at=time.time() + 0.1)[-1] == SliceResult("done")
    assert store.safe() == set()


# --- slices --------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that ``step``s at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 1_000_000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_slice_starts_only_what_fits() -> None:
    store, upstream, clock = Store(200), Upstream(), Clock(0.1)
    starts: list[float] = []
    upstream.on_send = lambda _: starts.append(clock.now)
    ends_at = clock.now + MARGIN + 30.0 + 10.0
    result = run(store, upstream, clock=clock, ends_at=ends_at, request_seconds=30.0)
    assert result.state == "more"
    assert 0 < len(upstream.sends) < 200
    # The clock steps at each of the eight starts that one look at it allows.
    assert max(starts) + 30.0 + MARGIN <= ends_at + 8 * clock.step
    assert store.safe() == set(upstream.sends)


def test_a_late_answer_is_left_to_the_next_slice() -> None:
    store, upstream = Store(3), Upstream(lambda n, tries: OK if n or tries > 2 else BROKEN)
    hang = asyncio.Event

    async def send(body: bytes, request_id: str) -> Answer:
        answer = await upstream.send(body, request_id)
        if json.loads(body)["n"] == 0 and upstream.tries[0] == 2:
            await hang().wait()  # longer than it may: as an answer that waits for room
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


def test_a_short_slice_sends_nothing() -> None:
    store, upstream = Store(5), Upstream()
    result = run(store, upstream, ends_at=time.time() + MARGIN + 9.0, request_seconds=10.0)
    assert (result.state, upstream.sends) == ("more", [])


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
    store = Store(40, 40)
    upstream = Upstream(lambda _, __: Answer(429, b"{}", retry_after=0.3) if len(upstream.sends) <= 4 else OK)
    times: list[float] = []
    upstream.on_send = lambda _: times.append(time.monotonic())
    assert run(store, upstream, concurrency=4).state == "done"
    assert times[3] - times[0] < 0.2
    assert times[4] - times[0] >= 0.29


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


def test_carried_refusals_start_with_one_request() -> None:
    store, upstream = Store(50, 50), Upstream(lambda _, __: Answer(429, b"{}", retry_after=30.0))
    refused = run(store, upstream)
    assert refused.carry.refusals >= 1
    peaks: list[int] = []
    again = Upstream(seconds=0.002)
    again.on_send = lambda _: peaks.append(again.in_flight)
    clock = Clock()
    clock.now = time.time() + 31
    assert run(store, again, carry=refused.carry, clock=clock).state == "done"
    assert peaks[0] == 1
    assert peaks[1] <= 2
    assert max(peaks) == 8


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
    """``wait`` comes in short steps, so that a cancel is seen; the upstream is left alone all the same."""
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
    """A single refusal among many answers is no pause for all."""
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


# --- memory --------------------------------------------------------------------------------------------------------


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
