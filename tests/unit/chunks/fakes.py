"""A chunk store and an upstream in memory, and runs against them."""

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from nightshift.batches.progress import AnswerSeconds
from nightshift.chunks.chunk import Carry, Chunk, Deadlines, SliceResult
from nightshift.chunks.chunk_run import ChunkRun
from nightshift.chunks.run_limits import RunLimits
from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.parts import decode_part, encode_part
from nightshift.results.seals import SealSummary
from nightshift.results.seals import seal as seal_lines
from nightshift.upstream.answer import Answer
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.pacing import Backoff

from tests.unit.samples import request_line

OK = Answer(200, b'{"object":"chat.completion","model":"upstream"}')
REFUSED = Answer(429, b'{"error":{}}')
BROKEN = Answer(500, b'{"error":{"message":"oops"}}')


class CrashError(BaseException):
    """The worker crashes here."""


# Short times, so that a test stores as often as a run of minutes does.
LIMITS = RunLimits(
    first_store_seconds=0.005,
    store_seconds=0.005,
    tick_seconds=0.005,
    last_answers_seconds=0.05,
    backoff=Backoff(base=0.001, longest=0.004),
)
MARGIN = LIMITS.slice_margin_seconds


class Store:
    """A chunk of ``lines`` lines and its results, in memory. ``before`` and ``after`` surround each operation."""

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
        parts = self.result_parts(segment.first_line, segment.end_line)
        return self.seal(segment, [line for part in parts for line in part])

    def record_progress(self, completed: int, failed: int, answer_seconds: AnswerSeconds | None = None) -> None:
        self.before("record_progress")
        self.counts.append((completed, failed))
        self.answer_seconds = answer_seconds
        self.after("record_progress")

    def in_progress(self) -> bool:
        return self.is_in_progress

    def safe(self) -> set[int]:
        """The numbers of the lines that are stored, so that no run sends them again."""
        in_parts = {line.number for part in list(self.parts) for _, line in decode_part(part)}
        return in_parts | {n for s in self.segments if s.first_line in self.sealed for n in s.line_numbers}

    def results(self) -> list[dict[str, Any]]:
        """All sealed lines in the order of the input."""
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


class Upstream:
    """Answers line ``n`` with ``script(n, tries)``; ``tries`` counts from 1."""

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
    **changes: Any,
) -> ChunkRun:
    now = changes.get("clock", time.time)()
    return ChunkRun(
        Chunk("batch_0123", "shown", "sent", store.segments, concurrency),
        store,
        Sender(send),
        Deadlines(ends_at or now + 900, expires_at or now + 86_400, request_seconds),
        **{"budget": ByteBudget(2**25), "limits": LIMITS, "rng": random.Random(1), **changes},
    )


def stored(carry: Carry) -> Carry:
    """The carry as it comes back from Step Functions."""
    state = json.loads(json.dumps(msgspec.to_builtins(carry, str_keys=True)))
    return msgspec.convert(state, Carry, str_keys=True)


def run(store: Store, upstream: Upstream, **changes: Any) -> SliceResult:
    return asyncio.run(new_run(store, upstream.send, **changes).run())


def run_to_the_end(store: Store, upstream: Upstream, **changes: Any) -> list[SliceResult]:
    """Run slice after slice, as the state machine does but without waiting."""
    results = [run(store, upstream, **changes)]
    while results[-1].state != "done":
        assert len(results) < 100, "the chunk does not end"
        assert len(msgspec.json.encode(results[-1].carry)) < 256 * 1024
        results.append(run(store, upstream, carry=stored(results[-1].carry), **changes))
    return results


class Clock:
    """A clock that advances by ``step`` seconds each time it is read."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 1_000_000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now
