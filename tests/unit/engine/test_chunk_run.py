"""A run through a chunk: every line once and in order, whatever the upstream, the keep or the clock does."""

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.engine import chunk_run as chunk
from nightshift.engine import pacing
from nightshift.engine.chunk_run import ChunkRun, SliceResult
from nightshift.input.layout import Segment
from nightshift.results.lines import OutputLine, SealSummary, decode_part, encode_part, seal
from nightshift.upstream.answer import MAX_TRIES, Answer, Failure
from nightshift.upstream.byte_budget import Room

from tests.unit.samples import request_line

OK = Answer(200, b'{"object":"chat.completion","model":"upstream"}')
REFUSED = Answer(429, b'{"error":{}}')
BROKEN = Answer(500, b'{"error":{"message":"oops"}}')


class CrashError(Exception):
    """What a test makes the keep or the upstream raise: the worker dies there."""


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "FIRST_KEEP_SECONDS", 0.005)
    monkeypatch.setattr(chunk, "KEEP_SECONDS", 0.005)
    monkeypatch.setattr(chunk, "LAST_ANSWERS_SECONDS", 0.05)
    monkeypatch.setattr(pacing, "BASE_DELAY", 0.001)
    monkeypatch.setattr(pacing, "MAX_DELAY", 0.004)


class Keep:
    """A chunk of ``lines`` lines in memory, kept as the bucket and the table keep it."""

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
        self.kept: list[bytes] = []
        self.seals: dict[int, tuple[bytes, SealSummary]] = {}
        self.counts: list[tuple[int, int]] = []
        self.is_wanted = True
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    def read(self, segment: Segment) -> bytes:
        self.before("read")
        return self.content[segment.start : segment.end]

    def sealed(self, segments: list[Segment]) -> list[SealSummary | None]:
        self.before("sealed")
        return [self.seals[s.first_line][1] if s.first_line in self.seals else None for s in segments]

    def parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        for part in list(self.kept):
            self.before("parts")
            yield [line for _, line in decode_part(part) if first_line <= line.line < end_line]

    def write_part(self, lines: list[OutputLine]) -> None:
        self.before("write_part")
        self.kept.append(encode_part(lines))
        self.after("write_part")

    def write_sealed(self, segment: Segment, lines: list[OutputLine]) -> SealSummary:
        self.before("write_sealed")
        content, summary = seal(lines)
        if summary.completed + summary.failed != segment.lines:
            raise ValueError(f"{summary.completed + summary.failed} lines for a segment of {segment.lines}")
        with self._lock:
            first = self.seals.setdefault(segment.first_line, (content, summary))
        self.after("write_sealed")
        return first[1]

    def seal_parts(self, segment: Segment) -> SealSummary:
        span = (segment.first_line, segment.first_line + segment.lines)
        return self.write_sealed(segment, [line for part in self.parts(*span) for line in part])

    def progress(self, completed: int, failed: int) -> None:
        self.before("progress")
        self.counts.append((completed, failed))
        self.after("progress")

    def wanted(self) -> bool:
        return self.is_wanted

    def safe(self) -> set[int]:
        """The lines that no run need send again."""
        in_parts = {line.line for part in list(self.kept) for _, line in decode_part(part)}
        return in_parts | {n for s in self.segments if s.first_line in self.seals for n in _numbers(s)}

    def results(self) -> list[dict[str, Any]]:
        """All sealed lines in the order of the input; where two lines are one, this fails."""
        lines = [
            json.loads(line)
            for s in self.segments
            if s.first_line in self.seals
            for line in self.seals[s.first_line][0].splitlines()
        ]
        return sorted(lines, key=lambda line: int(line["custom_id"].removeprefix("id-")))

    def assert_each_line_once_and_in_order(self) -> None:
        expected = [f"id-{n}" for n in range(self.lines)]
        assert [line["custom_id"] for line in self.results()] == expected
        assert len({line["id"] for line in self.results()}) == self.lines
        for content, summary in self.seals.values():
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


def new_run(
    keep: Keep, send: Callable[[bytes, str], Awaitable[Answer]], *, concurrency: int = 8, **changes: Any
) -> ChunkRun:
    now = changes.get("clock", time.time)()
    settings: dict[str, Any] = {
        "request_seconds": 10.0,
        "ends_at": now + 900,
        "expires_at": now + 86_400,
        "rng": random.Random(1),
        "room": Room(chunk.ROOM_BYTES),
    }
    return ChunkRun(
        batch_id="batch_0123",
        model="shown",
        upstream_model="sent",
        segments=keep.segments,
        keep=keep,
        send=send,
        concurrency=concurrency,
        **(settings | changes),
    )


def run(keep: Keep, upstream: Upstream, **changes: Any) -> SliceResult:
    return asyncio.run(new_run(keep, upstream.send, **changes).run())


def run_to_the_end(keep: Keep, upstream: Upstream, **changes: Any) -> list[SliceResult]:
    """As the state machine does, but without waiting."""
    results = [run(keep, upstream, **changes)]
    while results[-1].state != "done":
        assert len(results) < 100, "the chunk never ends"
        assert len(msgspec.json.encode(results[-1].carry)) < 256 * 1024
        results.append(run(keep, upstream, carry=json.loads(json.dumps(results[-1].carry)), **changes))
    return results


# --- all is well -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [1, 4, 5, 6, 100])
def test_answers_every_line_once_and_in_order(lines: int) -> None:
    keep, upstream = Keep(lines), Upstream()
    assert run(keep, upstream) == SliceResult("done")
    keep.assert_each_line_once_and_in_order()
    assert sorted(upstream.sends) == list(range(lines))
    assert keep.counts[-1] == (lines, 0)


def test_the_upstream_sees_its_own_model_and_the_caller_the_one_it_asked_for() -> None:
    keep, upstream = Keep(3), Upstream()
    run(keep, upstream)
    assert {json.loads(body)["model"] for body in upstream.bodies} == {"sent"}
    assert {line["response"]["body"]["model"] for line in keep.results()} == {"shown"}


def test_a_line_keeps_its_request_id_over_all_its_tries() -> None:
    keep, upstream = Keep(3), Upstream(lambda _, tries: OK if tries == 3 else BROKEN)
    run(keep, upstream)
    assert {line["id"] for line in keep.results()} == set().union(*upstream.request_ids.values())
    assert all(len(ids) == 1 for ids in upstream.request_ids.values())


@pytest.mark.parametrize("concurrency", [1, 2, 7, 64])
def test_fills_the_limit_and_never_passes_it(concurrency: int) -> None:
    keep, upstream = Keep(200, 50), Upstream(seconds=0.002)
    run(keep, upstream, concurrency=concurrency)
    assert upstream.peak == concurrency


def test_refusals_and_errors_do_not_let_it_pass_the_limit() -> None:
    chance = random.Random(7)
    answers = [OK, OK, REFUSED, BROKEN, Answer(failure="timeout"), Answer(failure="connect")]
    keep, upstream = Keep(150), Upstream(lambda _, __: chance.choice(answers), seconds=0.001)
    run_to_the_end(keep, upstream, concurrency=16)
    assert upstream.peak <= 16
    keep.assert_each_line_once_and_in_order()


def test_out_of_order_answers_come_out_in_order() -> None:
    keep = Keep(60, 20)

    async def send(body: bytes, _: str) -> Answer:
        await asyncio.sleep(0.001 * ((61 - json.loads(body)["n"]) % 7))
        return OK

    asyncio.run(new_run(keep, send).run())
    keep.assert_each_line_once_and_in_order()


def test_segments_are_sealed_while_others_are_still_worked_on() -> None:
    keep, upstream = Keep(20, 5), Upstream(seconds=0.01)
    seen: list[int] = []
    upstream.on_send = lambda line: seen.append(len(keep.seals)) if line == 19 else None
    run(keep, upstream, concurrency=2)
    assert seen[0] >= 2


def test_progress_never_counts_what_is_not_kept() -> None:
    keep, upstream = Keep(50, 10), Upstream(seconds=0.003)
    behind: list[tuple[int, int]] = []

    def check(operation: str) -> None:
        if operation == "progress" and sum(keep.counts[-1]) > len(keep.safe()):
            behind.append(keep.counts[-1])

    keep.after = check
    run(keep, upstream, concurrency=3)
    assert not behind
    totals = [sum(count) for count in keep.counts]
    assert totals == sorted(totals)


# --- what an answer means for its line -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_a_server_error_is_tried_five_times_and_then_is_the_line(status: int) -> None:
    keep, upstream = Keep(2), Upstream(lambda _, __: Answer(status, BROKEN.body))
    assert run(keep, upstream).state == "done"
    assert upstream.tries == {0: MAX_TRIES, 1: MAX_TRIES}
    for line in keep.results():
        assert line["response"]["status_code"] == status
        assert line["response"]["body"] == {"error": {"message": "oops"}}
        assert line["error"] is None
    assert keep.counts[-1] == (0, 2)


def test_a_server_error_that_passes_leaves_no_trace() -> None:
    keep, upstream = Keep(10), Upstream(lambda _, tries: BROKEN if tries < MAX_TRIES else OK)
    run(keep, upstream)
    assert keep.counts[-1] == (10, 0)


@pytest.mark.parametrize("refusal", [REFUSED, Answer(503, b"{}"), Answer(failure="connect")])
def test_not_now_is_asked_again_for_as_long_as_it_takes(refusal: Answer) -> None:
    keep, upstream = Keep(6), Upstream(lambda _, tries: refusal if tries <= 3 * MAX_TRIES else OK)
    run_to_the_end(keep, upstream)
    keep.assert_each_line_once_and_in_order()
    assert all(tries == 3 * MAX_TRIES + 1 for tries in upstream.tries.values())
    assert keep.counts[-1] == (6, 0)


def test_not_now_does_not_count_as_a_try() -> None:
    keep, upstream = Keep(1), Upstream(lambda _, tries: REFUSED if tries % 2 else BROKEN)
    run_to_the_end(keep, upstream)
    assert upstream.tries == {0: 2 * MAX_TRIES}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 302])
def test_any_other_error_is_the_line_at_once(status: int) -> None:
    keep, upstream = Keep(3), Upstream(lambda _, __: Answer(status, b'{"error":{"message":"no"}}'))
    run(keep, upstream)
    assert upstream.tries == {0: 1, 1: 1, 2: 1}
    assert {line["response"]["status_code"] for line in keep.results()} == {status}
    assert keep.counts[-1] == (0, 3)


@pytest.mark.parametrize(
    ("failure", "tries", "code"),
    [
        ("timeout", MAX_TRIES, "request_timeout"),
        ("broken", MAX_TRIES, "upstream_unreachable"),
        ("not_json", MAX_TRIES, "upstream_unreachable"),
        ("too_long", 1, "upstream_unreachable"),
    ],
)
def test_a_line_without_any_answer_says_why(failure: Failure, tries: int, code: str) -> None:
    keep, upstream = Keep(2), Upstream(lambda _, __: Answer(failure=failure))
    run(keep, upstream)
    assert upstream.tries == {0: tries, 1: tries}
    for line in keep.results():
        assert line["response"] is None
        assert line["error"]["code"] == code


def test_answers_and_failures_are_told_apart_in_one_chunk() -> None:
    keep = Keep(30, 7)
    run(keep, Upstream(lambda line, _: OK if line % 3 else Answer(400, b"{}")))
    keep.assert_each_line_once_and_in_order()
    assert keep.counts[-1] == (20, 10)


# --- crashes -------------------------------------------------------------------------------------------------------


class Chaos:
    """Crashes the run at its ``at``-th call of keep or upstream."""

    def __init__(self, keep: Keep, upstream: Upstream, after: bool) -> None:
        self.at = -1
        self._calls = 0
        self._lock = threading.Lock()
        keep.before = (lambda _: None) if after else self._count
        keep.after = self._count if after else (lambda _: None)
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
    held=st.sampled_from([0, 500, chunk.MAX_HELD_BYTES]),
    body=st.sampled_from([1, 300, chunk.MAX_BODY_BYTES]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_after_crashes_anywhere_only_what_was_not_kept_is_sent_again(
    lines: int, segment_lines: int, crashes: list[int], after: bool, held: int, body: int, seed: int
) -> None:
    chance = random.Random(seed)
    answers = [OK, OK, OK, Answer(400, b"{}"), REFUSED, BROKEN]
    keep, upstream = Keep(lines, segment_lines), Upstream(lambda _, __: chance.choice(answers))
    chaos = Chaos(keep, upstream, after)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunk, "MAX_HELD_BYTES", held)
        patched.setattr(chunk, "MAX_BODY_BYTES", body)
        for crash in [*crashes, -1]:
            safe, sent = keep.safe(), len(upstream.sends)
            chaos.crash_at(crash)
            try:
                run_to_the_end(keep, upstream)
            except* CrashError:
                assert crash > 0
            assert not safe & set(upstream.sends[sent:]), "a line that was kept was sent again"
    keep.assert_each_line_once_and_in_order()
    assert sum(keep.counts[-1]) == lines


@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.008, 0.02, 0.04])
def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(seconds: float) -> None:
    keep, upstream = Keep(40, 8), Upstream(seconds=0.004)

    async def killed() -> None:
        task = asyncio.create_task(new_run(keep, upstream.send, concurrency=4).run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(killed())
    safe, sent = keep.safe(), len(upstream.sends)
    assert run(keep, upstream, concurrency=4).state == "done"
    assert set(upstream.sends[sent:]) == set(range(40)) - safe
    keep.assert_each_line_once_and_in_order()


def test_a_chunk_that_is_sealed_sends_nothing_and_reads_nothing() -> None:
    keep, upstream = Keep(10), Upstream()
    run(keep, upstream)
    operations: list[str] = []
    keep.before = operations.append
    assert run(keep, upstream) == SliceResult("done")
    assert len(upstream.sends) == 10
    assert set(operations) <= {"sealed", "progress"}
    assert keep.counts[-1] == (10, 0)


def test_a_segment_that_parts_hold_whole_is_sealed_without_sending() -> None:
    keep, upstream = Keep(5), Upstream()

    def no_seals(operation: str) -> None:
        if operation == "write_sealed":
            raise CrashError

    keep.before = no_seals
    with pytest.raises(ExceptionGroup):
        run(keep, upstream)
    # What that run had in hand when it could not seal is kept by one that finds it in a part.
    keep.write_part([OutputLine(n, b'{"id":"%d","custom_id":"id-%d"}' % (n, n), True) for n in range(5)])
    keep.before, sent = (lambda _: None), len(upstream.sends)
    assert run(keep, upstream).state == "done"
    assert len(upstream.sends) == sent
    keep.assert_each_line_once_and_in_order()


def test_a_line_that_two_parts_hold_counts_once() -> None:
    keep, upstream = Keep(5), Upstream()
    twice = [OutputLine(n, b'{"id":"%d","custom_id":"id-%d"}' % (n, n), True) for n in (1, 3)]
    keep.write_part(twice)
    keep.write_part(twice)
    run(keep, upstream)
    keep.assert_each_line_once_and_in_order()
    assert sorted(upstream.sends) == [0, 2, 4]
    assert keep.counts[-1] == (5, 0)


@given(seed=st.integers(0, 1000), held=st.sampled_from([0, chunk.MAX_HELD_BYTES]))
@settings(max_examples=20)
def test_two_workers_on_one_chunk_still_give_each_line_once(seed: int, held: int) -> None:
    keep, chance = Keep(40, 8), random.Random(seed)
    one = Upstream(lambda _, __: OK, seconds=0.001 * chance.random())
    other = Upstream(lambda _, __: Answer(400, b"{}"), seconds=0.001 * chance.random())

    async def both() -> None:
        later = 0.01 * chance.random()

        async def second() -> None:
            await asyncio.sleep(later)
            await new_run(keep, other.send, concurrency=3).run()

        await asyncio.gather(new_run(keep, one.send, concurrency=3).run(), second())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chunk, "MAX_HELD_BYTES", held)
        asyncio.run(both())
    keep.assert_each_line_once_and_in_order()


# --- the end of a batch --------------------------------------------------------------------------------------------


def test_a_cancelled_batch_is_no_longer_sent_and_keeps_what_is_finished() -> None:
    keep, upstream = Keep(500, 50), Upstream(seconds=0.002)

    def cancel_after_some(line: int) -> None:
        if len(upstream.sends) == 60:
            keep.is_wanted = False

    upstream.on_send = cancel_after_some
    result = run(keep, upstream, concurrency=10)
    assert result == SliceResult("done")
    assert len(upstream.sends) < 300
    assert len(keep.safe()) == len(upstream.sends)  # also those in flight, which had time to finish
    assert keep.counts[-1] == (len(upstream.sends), 0)


def test_a_cancelled_batch_waits_for_slow_answers_only_up_to_a_bound() -> None:
    keep = Keep(40)
    answered = 0

    async def send(_: bytes, __: str) -> Answer:
        nonlocal answered
        if answered == 12:
            keep.is_wanted = False
            await asyncio.sleep(60)
        answered += 1
        return OK

    started = time.monotonic()
    assert asyncio.run(new_run(keep, send).run()) == SliceResult("done")
    assert time.monotonic() - started < 3
    assert len(keep.safe()) == 12


def test_an_expired_batch_sends_nothing() -> None:
    keep, upstream = Keep(10), Upstream()
    assert run(keep, upstream, expires_at=time.time() - 1) == SliceResult("done")
    assert upstream.sends == []


def test_a_batch_that_expires_midway_stops_sending_and_keeps_what_is_finished() -> None:
    keep, upstream = Keep(2_000, 50), Upstream(seconds=0.01)
    deadline = time.time() + 0.1
    late: list[int] = []
    upstream.on_send = lambda line: late.append(line) if time.time() > deadline + 0.01 else None
    assert run(keep, upstream, concurrency=10, expires_at=deadline) == SliceResult("done")
    assert late == []
    assert 0 < len(upstream.sends) < 2_000
    assert len(keep.safe()) == len(upstream.sends)


def test_a_batch_that_expires_while_the_upstream_refuses_ends() -> None:
    keep, upstream = Keep(10), Upstream(lambda _, __: REFUSED)
    assert run_to_the_end(keep, upstream, expires_at=time.time() + 0.1)[-1] == SliceResult("done")
    assert keep.safe() == set()


# --- slices --------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that ``step``s at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 1_000_000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_slice_starts_nothing_that_cannot_finish_in_it() -> None:
    keep, upstream, clock = Keep(200), Upstream(), Clock(0.1)
    starts: list[float] = []
    upstream.on_send = lambda _: starts.append(clock.now)
    ends_at = clock.now + chunk.SLICE_MARGIN_SECONDS + 30.0 + 10.0
    result = run(keep, upstream, clock=clock, ends_at=ends_at, request_seconds=30.0)
    assert result.state == "more"
    assert 0 < len(upstream.sends) < 200
    assert max(starts) + 30.0 + chunk.SLICE_MARGIN_SECONDS <= ends_at + 0.5
    assert keep.safe() == set(upstream.sends)


def test_an_answer_that_is_still_not_there_when_the_slice_ends_is_asked_for_in_the_next_one() -> None:
    keep, upstream = Keep(3), Upstream(lambda n, tries: OK if n or tries > 2 else BROKEN)
    hang = asyncio.Event

    async def send(body: bytes, request_id: str) -> Answer:
        answer = await upstream.send(body, request_id)
        if json.loads(body)["n"] == 0 and upstream.tries[0] == 2:
            await hang().wait()  # longer than it may: as an answer that waits for room
        return answer

    ends_at = time.time() + chunk.SLICE_MARGIN_SECONDS + 1.0
    result = asyncio.run(new_run(keep, send, ends_at=ends_at, request_seconds=0.1).run())
    assert (result.state, result.carry["lines"]) == ("more", {"0": (1, 0.0)})
    assert keep.safe() == {1, 2}
    assert run(keep, upstream, carry=result.carry).state == "done"
    keep.assert_each_line_once_and_in_order()
    assert upstream.tries == {0: 3, 1: 1, 2: 1}


def test_slice_after_slice_the_chunk_is_done() -> None:
    keep, upstream, clock = Keep(100), Upstream(), Clock(0.1)
    slices = 0
    carry: dict[str, Any] = {}
    while True:
        ends_at = clock.now + chunk.SLICE_MARGIN_SECONDS + 30.0 + 10.0
        result = run(keep, upstream, clock=clock, ends_at=ends_at, request_seconds=30.0, carry=carry)
        carry, slices = result.carry, slices + 1
        if result.state == "done":
            break
        assert slices < 50
    assert slices > 1
    assert upstream.tries == dict.fromkeys(range(100), 1)
    keep.assert_each_line_once_and_in_order()


def test_a_slice_too_short_for_any_request_sends_none() -> None:
    keep, upstream = Keep(5), Upstream()
    result = run(keep, upstream, ends_at=time.time() + chunk.SLICE_MARGIN_SECONDS + 9.0, request_seconds=10.0)
    assert (result.state, upstream.sends) == ("more", [])


@pytest.mark.parametrize(("asked", "seconds"), [(6.5, (6, 7)), (19.0, (18, 19)), (600.0, (chunk.MAX_WAIT_SECONDS,))])
def test_a_long_pause_is_left_to_step_functions(asked: float, seconds: tuple[int, ...]) -> None:
    keep = Keep(5)
    result = run(keep, Upstream(lambda _, __: Answer(429, b"{}", retry_after=asked)))
    assert result.state == "wait"
    assert result.wait_seconds in seconds


def test_a_short_pause_is_waited_for_in_the_slice() -> None:
    keep = Keep(1)
    times: list[float] = []
    upstream = Upstream(lambda _, tries: Answer(429, b"{}", retry_after=0.3) if tries == 1 else OK)
    upstream.on_send = lambda _: times.append(time.monotonic())
    assert run(keep, upstream).state == "done"
    assert times[1] - times[0] >= 0.3


def test_in_a_pause_no_line_is_sent_not_even_a_fresh_one() -> None:
    keep = Keep(40, 40)
    upstream = Upstream(lambda _, __: Answer(429, b"{}", retry_after=0.3) if len(upstream.sends) <= 4 else OK)
    times: list[float] = []
    upstream.on_send = lambda _: times.append(time.monotonic())
    assert run(keep, upstream, concurrency=4).state == "done"
    assert times[3] - times[0] < 0.2
    assert times[4] - times[0] >= 0.29


def test_a_wait_does_not_go_past_the_deadline() -> None:
    keep = Keep(5)
    upstream = Upstream(lambda _, __: Answer(503, b"{}", retry_after=500.0))
    result = run(keep, upstream, expires_at=time.time() + 7)
    assert result.state == "wait"
    assert result.wait_seconds <= 7


def test_one_line_that_waits_long_does_not_hold_up_the_others() -> None:
    keep = Keep(20)
    upstream = Upstream(lambda line, _: Answer(500, b"{}", retry_after=100.0) if line == 3 else OK)
    assert run(keep, upstream).state == "wait"
    assert keep.safe() == set(range(20)) - {3}


def test_refusals_are_carried_so_that_the_next_slice_starts_with_one_request() -> None:
    keep, upstream = Keep(50, 50), Upstream(lambda _, __: Answer(429, b"{}", retry_after=30.0))
    refused = run(keep, upstream)
    assert refused.carry["refusals"] >= 1
    peaks: list[int] = []
    again = Upstream(seconds=0.002)
    again.on_send = lambda _: peaks.append(again.in_flight)
    clock = Clock()
    clock.now = time.time() + 31
    assert run(keep, again, carry=refused.carry, clock=clock).state == "done"
    assert peaks[0] == 1
    assert peaks[1] <= 2
    assert max(peaks) == 8


def test_tries_are_carried_so_that_five_are_five_over_all_slices() -> None:
    keep, upstream, clock = Keep(1), Upstream(lambda _, __: Answer(500, b"{}", retry_after=15.0)), Clock()
    carry: dict[str, Any] = {}
    for _ in range(MAX_TRIES):
        result = run(keep, upstream, carry=carry, clock=clock)
        carry = json.loads(json.dumps(result.carry))
        clock.now += result.wait_seconds + 1
    assert result.state == "done"
    assert upstream.tries == {0: MAX_TRIES}


def test_a_pause_that_the_upstream_asked_for_lasts_over_slices() -> None:
    """``wait`` comes in short steps, so that a cancel is seen; the upstream is left alone all the same."""
    keep, clock = Keep(5), Clock()
    upstream = Upstream(lambda _, tries: Answer(429, b"{}", retry_after=60.0) if tries == 1 else OK)
    started, sent_at = clock.now, []
    upstream.on_send = lambda _: sent_at.append(clock.now - started)
    result = run(keep, upstream, clock=clock)
    while result.state == "wait":
        clock.now += result.wait_seconds
        result = run(keep, upstream, clock=clock, carry=json.loads(json.dumps(result.carry)))
    assert result.state == "done"
    assert [at for at in sent_at if 1 < at < 59] == []


@pytest.mark.parametrize("refusal", [Answer(429, b"{}", retry_after=60.0), Answer(500, b"{}", retry_after=60.0)])
def test_a_few_lines_that_were_asked_to_wait_do_so_over_slices(refusal: Answer) -> None:
    """A single refusal among many answers is no pause for all."""
    keep, clock = Keep(40), Clock()
    upstream = Upstream(lambda n, tries: refusal if n == 7 and tries <= 2 else OK)
    sent_at = []
    upstream.on_send = lambda n: sent_at.append(clock.now) if n == 7 else None
    result = run(keep, upstream, clock=clock, concurrency=40)
    while result.state == "wait":
        clock.now += result.wait_seconds
        result = run(keep, upstream, clock=clock, concurrency=40, carry=json.loads(json.dumps(result.carry)))
    assert result.state == "done"
    assert len(sent_at) == 3
    assert all(later - earlier >= 60.0 for earlier, later in pairwise(sent_at))
    keep.assert_each_line_once_and_in_order()


def test_the_carry_fits_into_the_state_machine_however_many_lines_were_tried() -> None:
    keep, upstream = Keep(3_000, 1_000), Upstream(lambda _, __: Answer(500, b"{}", retry_after=15.0))
    result = run(keep, upstream, concurrency=256)
    assert result.state == "wait"
    assert len(result.carry["lines"]) == 3_000
    assert len(json.dumps(result.carry)) < 200_000


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [0, 1_000, 5_000])
def test_results_that_do_not_fit_in_memory_are_spilled_and_none_is_lost(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "MAX_HELD_BYTES", held)
    keep, upstream = Keep(300, 100), Upstream(seconds=0.002)
    assert run(keep, upstream).state == "done"
    keep.assert_each_line_once_and_in_order()
    assert upstream.tries == dict.fromkeys(range(300), 1)


@pytest.mark.parametrize("seal_bytes", [0, 5_000])
def test_a_segment_too_long_for_memory_is_sealed_from_parts(seal_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "SEAL_BYTES", seal_bytes)
    keep, upstream = Keep(60, 20), Upstream(seconds=0.002)
    done: list[str] = []
    keep.before = done.append
    assert run(keep, upstream).state == "done"
    keep.assert_each_line_once_and_in_order()
    assert ("parts" in done) == (seal_bytes == 0)
    assert keep.counts[-1] == (60, 0)


def test_nothing_is_sent_while_answers_that_are_not_kept_fill_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "FIRST_KEEP_SECONDS", 0.1)
    monkeypatch.setattr(chunk, "KEEP_SECONDS", 0.1)
    answer = Answer(200, b'{"object":"chat.completion","text":"%b"}' % (b"a" * 1000))
    keep, upstream, room = Keep(60, 20), Upstream(lambda _, __: answer), Room(5_000)
    full: list[bool] = []
    upstream.on_send = lambda _: full.append(room.full)
    assert run(keep, upstream, room=room, concurrency=2).state == "done"
    keep.assert_each_line_once_and_in_order()
    assert not any(full)
    assert room.taken == 0


def test_a_bound_on_bodies_slows_a_run_down_but_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "MAX_BODY_BYTES", 1)
    keep, upstream = Keep(60, 5), Upstream()
    loads: list[str] = []
    keep.before = loads.append
    assert run(keep, upstream).state == "done"
    keep.assert_each_line_once_and_in_order()
    assert loads.count("read") == 12


def test_no_more_segments_are_read_than_the_upstream_can_use() -> None:
    keep, upstream = Keep(400, 10), Upstream()
    ahead: list[int] = []
    reads: list[str] = []
    keep.before = lambda operation: reads.append(operation) if operation == "read" else None
    upstream.on_send = lambda _: ahead.append(10 * len(reads) - len(upstream.sends))
    run(keep, upstream, concurrency=4)
    assert max(ahead) <= 2 * 4 + 10 + 10
