"""One worker's run through its chunk: keep N requests in flight, lose nothing that is finished.

A run is a slice of the chunk's life, as long as one Lambda invocation may be. It first reads what earlier runs
kept, then sends what is not done yet. Every few seconds a keeper writes what has finished as a part, seals the
segments that are whole, records progress and looks whether the batch still wants to run. However the run ends,
the next one starts from what was kept; what was in flight at a crash, and nothing else, is sent again.
"""

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from nightshift.core.ids import request_line_id
from nightshift.engine.pacing import MAX_RETRY_AFTER, Pacer, backoff
from nightshift.input.file_check import requests
from nightshift.input.layout import Segment
from nightshift.results.lines import (
    SEAL_BYTES,
    OutputLine,
    SealSummary,
    answered_line,
    failed_line,
    usage_of,
    with_model,
)
from nightshift.upstream.answer import FAILURES, Answer, judge
from nightshift.upstream.byte_budget import Room

# How often finished lines are kept: soon after the start, so that even a worker that never lives long gets on.
FIRST_KEEP_SECONDS = 0.5
KEEP_SECONDS = 4.0
# A pause longer than this is left to Step Functions, where waiting costs nothing.
LONG_PAUSE_SECONDS = 5.0
# ... in steps short enough for a cancel to be seen within seconds.
MAX_WAIT_SECONDS = 20
# How long requests in flight are waited for when a batch is cancelled or expires.
LAST_ANSWERS_SECONDS = 10.0
# What has to fit behind the last answer of a slice: writing a part, sealing, the handler's end.
SLICE_MARGIN_SECONDS = 20.0
# Bounds on memory: request bodies waiting and in flight, and finished lines held until their segment is sealed.
MAX_BODY_BYTES = 48 * 1024 * 1024
MAX_HELD_BYTES = 32 * 1024 * 1024
# A part is written as soon as there is so much for it, and is no longer than this, but for its last line.
PART_BYTES = 8 * 1024 * 1024
# How many bytes of answers may be in memory before they are kept. While there is no room, nothing is sent.
ROOM_BYTES = 32 * 1024 * 1024


class InputGoneError(Exception):
    """The input file's bytes are not there any more."""


class Keep(Protocol):
    """Where a run reads its lines and keeps its results. All calls may block; they run in threads."""

    def read(self, segment: Segment) -> bytes:
        """The segment's lines.

        Raises:
            InputGoneError: they were deleted.
        """
        ...

    def sealed(self, segments: list[Segment]) -> list[SealSummary | None]: ...
    def parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]: ...
    def write_part(self, lines: list[OutputLine]) -> None: ...
    def write_sealed(self, segment: Segment, lines: list[OutputLine]) -> SealSummary: ...
    def seal_parts(self, segment: Segment) -> SealSummary:
        """Seal a segment that parts hold whole."""
        ...

    def progress(self, completed: int, failed: int) -> None: ...
    def wanted(self) -> bool:
        """Whether the batch is still to be worked on: neither cancelled nor ended."""
        ...


@dataclass(frozen=True, slots=True)
class SliceResult:
    """How a run ended: ``done`` (nothing left to do here), ``more`` (start again), ``wait`` (start again after
    ``wait_seconds``), ``renew`` (start again in a new execution). ``carry`` is handed to the next run."""

    state: Literal["done", "more", "wait", "renew"]
    wait_seconds: int = 0
    carry: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Line:
    number: int
    custom_id: str
    body: bytes
    segment: "_Open"
    tries: int = 0


class _Open:
    """A segment that is being worked on."""

    def __init__(self, span: Segment) -> None:
        self.span = span
        self.done: set[int] = set()
        self.held: list[OutputLine] = []
        self.held_bytes = 0
        self.spilled = False  # what was held is in parts, and no longer here

    @property
    def whole(self) -> bool:
        return len(self.done) == self.span.lines


class ChunkRun:
    """See the module's docstring. ``send`` posts a body and never raises for the upstream's faults.

    ``room`` is where ``send`` has its longer answers from; they are counted in it until they are kept.
    ``ends_at`` (by ``clock``, as all times here) is when the invocation is stopped from outside; ``expires_at`` is the
    batch's deadline. ``carry`` is what the last run's result carried.
    """

    def __init__(
        self,
        *,
        batch_id: str,
        model: str,
        upstream_model: str,
        segments: list[Segment],
        keep: Keep,
        send: Callable[[bytes, str], Awaitable[Answer]],
        room: Room,
        concurrency: int,
        request_seconds: float,
        ends_at: float,
        expires_at: float,
        carry: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        carry = carry or {}
        self._batch_id = batch_id
        self._model = model
        self._upstream_model = upstream_model
        self._spans = segments
        self._keep = keep
        self._send = send
        self._room = room
        self._clock = clock
        self._rng = rng or random.Random()
        self._expires_at = expires_at
        # Nothing is started that cannot finish within the slice. What is late all the same is left to the next one:
        # answers that wait for room may take longer than a request.
        self._last_answer = ends_at - SLICE_MARGIN_SECONDS
        self._last_start = self._last_answer - request_seconds
        self._pacer = Pacer(
            concurrency, refusals=carry.get("refusals", 0), resume_at=carry.get("resume_at", 0.0), rng=self._rng
        )
        self._carried: dict[int, tuple[int, float]] = {
            int(line): (tries, at) for line, (tries, at) in carry.get("lines", {}).items()
        }

        self._to_load: deque[_Open] = deque()
        self._loading = False
        self._fresh: deque[_Line] = deque()
        self._later: list[tuple[float, int, _Line]] = []
        self._in_flight: set[_Line] = set()
        self._body_bytes = 0
        self._held_bytes = 0
        self._unkept: list[OutputLine] = []
        self._unkept_bytes = 0
        self._opened: set[_Open] = set()
        self._whole: list[_Open] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._stopped = self._ended = False
        self._wake = asyncio.Event()  # for the driver: something may be started, or is over
        self._look = asyncio.Event()  # for the keeper: a segment is whole, or the run has ended

        self.completed = self.failed = self.sent = self.retried = self.refused = 0
        self.upstream_seconds = 0.0
        self.input_gone = False

    async def run(self) -> SliceResult:
        """Work until the chunk is done, the slice is over, a long pause is due, or the batch is not wanted."""
        await self._resume()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_regularly())
            result = await self._drive(group)
            for task in self._sending:
                task.cancel()
            self._ended = True
            self._look.set()
        await self._keep_now()
        return result

    # --- starting from what was kept -----------------------------------------------------------------------

    async def _resume(self) -> None:
        summaries = await asyncio.to_thread(self._keep.sealed, self._spans)
        opened: list[_Open] = []
        for span, summary in zip(self._spans, summaries, strict=True):
            if summary is None:
                opened.append(_Open(span))
            else:
                self.completed += summary.completed
                self.failed += summary.failed
        if opened:
            await asyncio.to_thread(self._read_parts, opened)
        for segment in opened:
            self._opened.add(segment)
            (self._whole if segment.whole else self._to_load).append(segment)

    def _read_parts(self, opened: list[_Open]) -> None:
        by_line = {line: segment for segment in opened for line in _numbers(segment.span)}
        first, last = opened[0].span, opened[-1].span
        for part in self._keep.parts(first.first_line, last.first_line + last.lines):
            for line in part:
                segment = by_line.get(line.line)
                if segment is not None and line.line not in segment.done:
                    self._count(segment, line)
            if self._held_bytes > MAX_HELD_BYTES:
                self._spill(opened)

    def _count(self, segment: _Open, line: OutputLine) -> None:
        segment.done.add(line.line)
        segment.held.append(line)
        segment.held_bytes += line.size
        self._held_bytes += line.size
        if line.answered:
            self.completed += 1
        else:
            self.failed += 1

    # --- sending ---------------------------------------------------------------------------------------------

    async def _drive(self, group: asyncio.TaskGroup) -> SliceResult:
        while True:
            now = self._clock()
            if self._stopped or now >= self._expires_at:
                await self._wind_up()
                return SliceResult("done")
            if now >= self._last_answer:
                return SliceResult("more", carry=self._carry())
            self._load_more(group)
            self._fill(group)
            if not self._in_flight and not self._loading:
                if not (self._fresh or self._later or self._to_load):
                    return SliceResult("done")
                if now >= self._last_start:
                    return SliceResult("more", carry=self._carry())
                pause = self._next_start() - now
                if pause > LONG_PAUSE_SECONDS:
                    seconds = max(1, round(min(pause, MAX_WAIT_SECONDS, self._expires_at - now)))
                    return SliceResult("wait", seconds, self._carry())
            self._wake.clear()
            # At most a second, so that the deadline and the slice's end are seen in time.
            free = len(self._in_flight) < self._pacer.limit and not self._room.full
            timed = free and now < self._last_start and (self._fresh or self._later)
            await _wait(self._wake, min(1.0, max(0.01, self._next_start() - now)) if timed else 1.0)

    def _next_start(self) -> float:
        """When the next request may start, as things are."""
        ready = 0.0 if self._fresh or not self._later else self._later[0][0]
        return max(ready, self._pacer.resume_at)

    def _fill(self, group: asyncio.TaskGroup) -> None:
        while (line := self._take()) is not None:
            task = group.create_task(self._work(line, group))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def _take(self) -> _Line | None:
        """The next line to send now, already counted as in flight; None where nothing may start."""
        now = self._clock()
        if (
            self._stopped
            or len(self._in_flight) >= self._pacer.limit
            or self._room.full
            or now < self._pacer.resume_at
            or now >= self._last_start
            or now >= self._expires_at
        ):
            return None
        if self._later and self._later[0][0] <= now:
            line = heapq.heappop(self._later)[2]
        elif self._fresh:
            line = self._fresh.popleft()
        else:
            return None
        self._in_flight.add(line)
        return line

    async def _work(self, line: _Line | None, group: asyncio.TaskGroup) -> None:
        """Send ``line``, then whatever may be sent next, until nothing may."""
        while line is not None:
            started_at = self._clock()
            self.sent += 1
            answer = await self._send(line.body, request_line_id(self._batch_id, line.number))
            self._in_flight.discard(line)
            self.upstream_seconds += self._clock() - started_at
            self._settle(line, answer, started_at)
            self._load_more(group)
            line = self._take()
            if line is not None:
                self._fill(group)
        self._wake.set()

    def _settle(self, line: _Line, answer: Answer, started_at: float) -> None:
        now = self._clock()
        verdict = judge(answer, line.tries + 1)
        if verdict == "not_now":
            self.refused += 1
            self._again(self._pacer.refused(started_at, now, answer.retry_after), line)
            return
        line.tries += 1
        if answer.failure is None:
            self._pacer.answered()
        if verdict == "retry":
            self.retried += 1
            asked = min(answer.retry_after or 0.0, MAX_RETRY_AFTER)
            self._again(now + max(asked, backoff(line.tries, self._rng.random())), line)
            return
        self._finish(line, self._output(line, answer))

    def _again(self, at: float, line: _Line) -> None:
        heapq.heappush(self._later, (at, line.number, line))

    def _output(self, line: _Line, answer: Answer) -> OutputLine:
        if answer.failure is not None:
            code, message = FAILURES[answer.failure]
            return failed_line(self._batch_id, line.number, line.custom_id, code, message)
        line_id = request_line_id(self._batch_id, line.number)
        return answered_line(
            self._batch_id,
            line.number,
            line.custom_id,
            answer.status,
            answer.request_id or line_id.replace("batch_req_", "req_"),
            with_model(answer.body, self._model),
            usage_of(answer.body),
        )

    def _finish(self, line: _Line, output: OutputLine) -> None:
        self._body_bytes -= len(line.body)
        if line.number in line.segment.done:
            return
        self._count(line.segment, output)
        self._unkept.append(output)
        self._unkept_bytes += output.size
        self._room.fill(output.size)
        if line.segment.whole:
            self._whole.append(line.segment)
        if line.segment.whole or self._unkept_bytes >= PART_BYTES:
            self._look.set()

    # --- loading ---------------------------------------------------------------------------------------------

    def _load_more(self, group: asyncio.TaskGroup) -> None:
        """Have the next segment read before the lines at hand run out."""
        enough = len(self._fresh) >= 2 * self._pacer.limit or self._body_bytes >= MAX_BODY_BYTES
        if self._to_load and not self._loading and not self._stopped and not enough:
            self._loading = True
            group.create_task(self._load(self._to_load.popleft()))

    async def _load(self, segment: _Open) -> None:
        try:
            block = await asyncio.to_thread(self._keep.read, segment.span)
        except InputGoneError:
            # What is loaded is still answered; the rest cannot be.
            self.input_gone = True
            self._to_load.clear()
            self._loading = False
            self._wake.set()
            return
        for number, request in zip(_numbers(segment.span), requests(block), strict=True):
            if number not in segment.done:
                body = with_model(bytes(request.body), self._upstream_model)
                self._body_bytes += len(body)
                tries, at = self._carried.pop(number, (0, 0.0))
                line = _Line(number, request.custom_id, body, segment, tries)
                if at > self._clock():
                    self._again(at, line)
                else:
                    self._fresh.append(line)
        self._loading = False
        self._wake.set()

    # --- keeping ---------------------------------------------------------------------------------------------

    async def _keep_regularly(self) -> None:
        pause = FIRST_KEEP_SECONDS
        while not self._ended:
            await _wait(self._look, pause)
            pause = min(KEEP_SECONDS, 2 * pause)
            self._look.clear()
            await self._keep_now()
            if not self._ended and not await asyncio.to_thread(self._keep.wanted):
                self._stopped = True
                self._wake.set()

    async def _keep_now(self) -> None:
        """Seal what is whole, write the rest as parts, then say how far the chunk is."""
        completed, failed = self.completed, self.failed
        whole, self._whole = self._whole, []
        unkept, self._unkept, self._unkept_bytes = self._unkept, [], 0
        # What is sealed from memory needs no part.
        direct = [segment for segment in whole if not segment.spilled and segment.held_bytes <= SEAL_BYTES]
        for_parts = [line for line in unkept if not any(line.line in segment.done for segment in direct)]
        for segment in direct:
            await asyncio.to_thread(self._keep.write_sealed, segment.span, segment.held)
        for part in _parts(for_parts):
            await asyncio.to_thread(self._keep.write_part, part)
        for segment in whole:
            self._opened.discard(segment)
            self._forget(segment, segment.done)
        self._room.empty(sum(line.size for line in unkept))
        if self._held_bytes > MAX_HELD_BYTES:
            self._spill(self._opened)
        del unkept, for_parts
        self._wake.set()
        for segment in whole:
            if segment not in direct:
                await asyncio.to_thread(self._keep.seal_parts, segment.span)
        await asyncio.to_thread(self._keep.progress, completed, failed)

    def _spill(self, opened: Iterable[_Open]) -> None:
        """Forget finished lines that parts hold; sealing reads them back."""
        unkept = {line.line for line in self._unkept}
        for segment in opened:
            self._forget(segment, segment.done - unkept)
            segment.spilled = True

    def _forget(self, segment: _Open, lines: Set[int]) -> None:
        segment.held = [line for line in segment.held if line.line not in lines]
        held_bytes = sum(line.size for line in segment.held)
        self._held_bytes += held_bytes - segment.held_bytes
        segment.held_bytes = held_bytes

    # --- ending ----------------------------------------------------------------------------------------------

    async def _wind_up(self) -> None:
        """Start nothing more and give what is in flight a little time."""
        self._stopped = True
        give_up = self._clock() + LAST_ANSWERS_SECONDS
        while self._in_flight and self._clock() < give_up:
            self._wake.clear()
            await _wait(self._wake, 0.5)

    def _carry(self) -> dict[str, Any]:
        """What the next run should know: that the upstream is refusing, how often lines were tried, and until when they
        are to wait."""
        now = self._clock()
        lines = self._carried | {
            line.number: (line.tries, 0.0) for line in (*self._fresh, *self._in_flight) if line.tries
        }
        lines |= {line.number: (line.tries, at) for at, _, line in self._later if line.tries or at > now}
        # State in Step Functions is at most 256 KiB.
        return {
            "refusals": self._pacer.refusals,
            "resume_at": self._pacer.resume_at,
            "lines": {str(number): lines[number] for number in sorted(lines)[:5_000]},
        }


def _parts(lines: list[OutputLine]) -> Iterator[list[OutputLine]]:
    """``lines`` in parts that end with the line that makes them ``PART_BYTES`` long."""
    part: list[OutputLine] = []
    size = 0
    for line in lines:
        part.append(line)
        size += line.size
        if size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _numbers(span: Segment) -> range:
    return range(span.first_line, span.first_line + span.lines)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
