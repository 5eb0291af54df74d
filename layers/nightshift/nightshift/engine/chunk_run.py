"""One worker's run through its chunk: keep requests in flight, and store what is finished.

A run is one slice of a chunk's life, as long as one Lambda invocation may be. It starts from what earlier runs stored
and sends only the lines that are not finished. Two loops work side by side: one sends, the other stores finished lines
every few seconds and looks whether the batch is still in progress. However a run ends, only the requests that were in
flight at a crash, and the lines that were not stored yet, are sent again.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from nightshift.core.ids import request_line_id
from nightshift.engine.ledger import Ledger, OpenSegment
from nightshift.engine.line_queue import CarriedLine, Line, LineQueue
from nightshift.engine.pacing import MAX_RETRY_AFTER, Pacer, backoff
from nightshift.engine.run_limits import RunLimits
from nightshift.input.layout import Segment
from nightshift.input.request import requests
from nightshift.results.completion import replace_model, usage_of
from nightshift.results.line import OutputLine, answered_line, failed_line
from nightshift.results.seals import SealSummary
from nightshift.upstream.answer import FAILURES, Answer, judge
from nightshift.upstream.byte_budget import ByteBudget


class InputGoneError(Exception):
    """The input file's bytes were deleted."""


class ChunkStore(Protocol):
    """Where a run reads its lines and stores its results. Every call may block; runs make them in threads."""

    def read(self, segment: Segment) -> bytes:
        """The segment's lines.

        Raises:
            InputGoneError: they were deleted.
        """
        ...

    def seals(self, segments: list[Segment]) -> list[SealSummary | None]:
        """The seal of each segment; None where it is open."""
        ...

    def result_parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        """The finished lines from ``first_line`` to ``end_line`` (not included), result part by result part."""
        ...

    def write_result_part(self, lines: list[OutputLine]) -> None: ...
    def seal(self, segment: Segment, lines: list[OutputLine]) -> SealSummary: ...
    def seal_from_parts(self, segment: Segment) -> SealSummary:
        """Seal a segment whose lines are all in result parts."""
        ...

    def record_progress(self, completed: int, failed: int) -> None: ...
    def in_progress(self) -> bool:
        """Whether the batch is to be worked on: it is neither cancelled nor ended."""
        ...


class Upstream(Protocol):
    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """Post one request. Whatever the upstream or the network does is an answer, not an exception."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a run works on: the chunk's segments, and the model as the caller and as the upstream name it."""

    batch_id: str
    model: str
    upstream_model: str
    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Times in seconds on the run's clock: the end of the invocation, the batch's deadline; and how long one request
    may take, in seconds."""

    slice_ends_at: float
    batch_expires_at: float
    request_seconds: float


class Carry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one slice hands to the next: the upstream's refusals in a row, until when it asked to be left alone, and
    the lines that were tried or must wait, by number."""

    refusals: int = 0
    resume_at: float = 0.0
    lines: dict[int, CarriedLine] = {}


NO_CARRY = Carry()


@dataclass(frozen=True, slots=True)
class SliceResult:
    """How a slice ended.

    ``done``: nothing is left to do here; ``more``: start again; ``wait``: start again after ``wait_seconds``;
    ``renew``: start again in a new execution. ``carry`` goes to the next slice.
    """

    state: Literal["done", "more", "wait", "renew"]
    wait_seconds: int = 0
    carry: Carry = NO_CARRY


@dataclass(slots=True)
class Statistics:
    """What a run did: requests sent, tried again and refused, and the seconds that answers took, in sum."""

    sent: int = 0
    retried: int = 0
    refused: int = 0
    upstream_seconds: float = 0.0
    input_gone: bool = False


class ChunkRun:
    """See the module's docstring. ``concurrency`` bounds the requests in flight.

    ``budget`` is the one from which ``upstream`` reserves its longer answers; finished answers are charged to it until
    they are stored.
    """

    def __init__(
        self,
        chunk: Chunk,
        store: ChunkStore,
        upstream: Upstream,
        deadlines: Deadlines,
        *,
        concurrency: int,
        budget: ByteBudget,
        carry: Carry = NO_CARRY,
        limits: RunLimits | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._chunk = chunk
        self._store = store
        self._upstream = upstream
        self._budget = budget
        self._limits = limits or RunLimits()
        self._clock = clock
        self._rng = rng or random.Random()
        self._expires_at = deadlines.batch_expires_at
        # No request starts that cannot end within the slice. An answer that is late all the same, because it waited for
        # the byte budget, is left to the next slice.
        self._last_answer_at = deadlines.slice_ends_at - self._limits.slice_margin_seconds
        self._last_start_at = self._last_answer_at - deadlines.request_seconds
        self._pacer = Pacer(concurrency, refusals=carry.refusals, resume_at=carry.resume_at, rng=self._rng)
        self._queue = LineQueue(carry.lines)
        self._ledger = Ledger(self._limits)
        self._unread: deque[OpenSegment] = deque()
        self._reading = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = self._ended = False
        self._sending_changed = asyncio.Event()  # something may be started, or has ended
        self._storing_due = asyncio.Event()  # a segment is whole, or the run has ended
        self.statistics = Statistics()

    @property
    def completed(self) -> int:
        return self._ledger.completed

    @property
    def failed(self) -> int:
        return self._ledger.failed

    async def run(self) -> SliceResult:
        """Work until the chunk is done, the slice is over, a long pause is due, or the batch is not in progress."""
        await asyncio.to_thread(self._restore)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store_regularly())
            result = await self._send_all(group)
            for task in self._tasks:
                task.cancel()
            self._ended = True
            self._storing_due.set()
        await self._store_now()
        return result

    def _restore(self) -> None:
        """Start from what earlier runs stored."""
        open_segments: list[Segment] = []
        for segment, seal in zip(self._chunk.segments, self._store.seals(self._chunk.segments), strict=True):
            if seal is None:
                open_segments.append(segment)
            else:
                self._ledger.restore_seal(seal)
        self._ledger.open(open_segments)
        if open_segments:
            for part in self._store.result_parts(open_segments[0].first_line, open_segments[-1].end_line):
                self._ledger.restore_part(part)
        self._unread.extend(self._ledger.unfinished())

    # --- sending ---------------------------------------------------------------------------------------------

    async def _send_all(self, group: asyncio.TaskGroup) -> SliceResult:
        while True:
            now = self._clock()
            if self._stopped or now >= self._expires_at:
                await self._await_last_answers()
                return SliceResult("done")
            if now >= self._last_answer_at:
                return SliceResult("more", carry=self._carry())
            self._read_ahead(group)
            self._start_requests(group)
            if not self._queue.in_flight and not self._reading:
                result = self._idle(now)
                if result is not None:
                    return result
            self._sending_changed.clear()
            await _wait(self._sending_changed, self._seconds_to_wait(now))

    def _idle(self, now: float) -> SliceResult | None:
        """How the slice ends, now that no request is in flight; None where one may start soon."""
        if self._queue.empty and not self._unread:
            return SliceResult("done")
        if now >= self._last_start_at:
            return SliceResult("more", carry=self._carry())
        pause = self._next_start_at() - now
        if pause <= self._limits.long_pause_seconds:
            return None
        seconds = max(1, round(min(pause, self._limits.max_wait_seconds, self._expires_at - now)))
        return SliceResult("wait", seconds, self._carry())

    def _next_start_at(self) -> float:
        """When the next request may start, as things are."""
        return max(self._queue.next_at, self._pacer.resume_at)

    def _seconds_to_wait(self, now: float) -> float:
        """Until a request may start; at most a second, so that the deadline and the slice's end are met in time."""
        may_start = len(self._queue.in_flight) < self._pacer.limit and not self._budget.full
        if may_start and now < self._last_start_at and not self._queue.empty:
            return min(1.0, max(0.01, self._next_start_at() - now))
        return 1.0

    def _start_requests(self, group: asyncio.TaskGroup) -> None:
        while (line := self._next_line()) is not None:
            task = group.create_task(self._send_from(line, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_line(self) -> Line | None:
        """The next line to send now, already in flight; None where nothing may start."""
        now = self._clock()
        if (
            self._stopped
            or len(self._queue.in_flight) >= self._pacer.limit
            or self._budget.full
            or now < self._pacer.resume_at
            or now >= self._last_start_at
            or now >= self._expires_at
        ):
            return None
        return self._queue.next(now)

    async def _send_from(self, first: Line, group: asyncio.TaskGroup) -> None:
        """Send ``first``, then whatever may be sent next, until nothing may."""
        line: Line | None = first
        while line is not None:
            started_at = self._clock()
            self.statistics.sent += 1
            answer = await self._upstream.send(line.body, request_line_id(self._chunk.batch_id, line.number))
            self.statistics.upstream_seconds += self._clock() - started_at
            self._settle(line, answer, started_at)
            self._read_ahead(group)
            line = self._next_line()
            if line is not None:
                self._start_requests(group)
        self._sending_changed.set()

    def _settle(self, line: Line, answer: Answer, started_at: float) -> None:
        """Finish the line, or queue it again."""
        now = self._clock()
        verdict = judge(answer, line.tries + 1)
        if verdict == "not_now":
            self.statistics.refused += 1
            self._queue.delay(line, self._pacer.refused(started_at, now, answer.retry_after))
            return
        line.tries += 1
        if answer.failure is None:
            self._pacer.answered()
        if verdict == "retry":
            self.statistics.retried += 1
            pause = min(answer.retry_after or 0.0, MAX_RETRY_AFTER)
            self._queue.delay(line, now + max(pause, backoff(line.tries, self._rng.random())))
            return
        self._queue.finish(line)
        output = self._output(line, answer)
        if self._ledger.record(output):
            self._budget.charge(output.size)
            if self._ledger.store_is_due:
                self._storing_due.set()

    def _output(self, line: Line, answer: Answer) -> OutputLine:
        batch_id = self._chunk.batch_id
        if answer.failure is not None:
            code, message = FAILURES[answer.failure]
            return failed_line(batch_id, line.number, line.custom_id, code, message)
        line_id = request_line_id(batch_id, line.number)
        return answered_line(
            batch_id,
            line.number,
            line.custom_id,
            answer.status,
            answer.request_id or line_id.replace("batch_req_", "req_"),
            replace_model(answer.body, self._chunk.model),
            usage_of(answer.body),
        )

    async def _await_last_answers(self) -> None:
        """Start nothing more, and give the requests in flight a little time."""
        self._stopped = True
        give_up_at = self._clock() + self._limits.last_answers_seconds
        while self._queue.in_flight and self._clock() < give_up_at:
            self._sending_changed.clear()
            await _wait(self._sending_changed, 0.5)

    def _carry(self) -> Carry:
        return Carry(self._pacer.refusals, self._pacer.resume_at, self._queue.carry(self._clock()))

    # --- reading ---------------------------------------------------------------------------------------------

    def _read_ahead(self, group: asyncio.TaskGroup) -> None:
        """Read the next segment before the ready lines run out."""
        enough = self._queue.ready >= 2 * self._pacer.limit or self._queue.body_bytes >= self._limits.body_bytes
        if self._unread and not self._reading and not self._stopped and not enough:
            self._reading = True
            group.create_task(self._read(self._unread.popleft()))

    async def _read(self, segment: OpenSegment) -> None:
        try:
            block = await asyncio.to_thread(self._store.read, segment.segment)
        except InputGoneError:
            # The lines that were read are still answered; the rest cannot be.
            self.statistics.input_gone = True
            self._unread.clear()
        else:
            now = self._clock()
            for number, request in zip(segment.segment.line_numbers, requests(block), strict=True):
                if number not in segment.done:
                    body = replace_model(bytes(request.body), self._chunk.upstream_model)
                    self._queue.add(Line(number, request.custom_id, body), now)
        self._reading = False
        self._sending_changed.set()

    # --- storing ---------------------------------------------------------------------------------------------

    async def _store_regularly(self) -> None:
        pause = self._limits.first_store_seconds
        while not self._ended:
            await _wait(self._storing_due, pause)
            pause = min(self._limits.store_seconds, 2 * pause)
            self._storing_due.clear()
            await self._store_now()
            if not self._ended and not await asyncio.to_thread(self._store.in_progress):
                self._stopped = True
                self._sending_changed.set()

    async def _store_now(self) -> None:
        """Seal whole segments, write other finished lines as result parts, then record the progress they make."""
        work = self._ledger.take()
        for segment in work.from_memory:
            await asyncio.to_thread(self._store.seal, segment.segment, segment.held)
        for part in work.parts:
            await asyncio.to_thread(self._store.write_result_part, list(part))
        self._ledger.stored(work)
        self._budget.discharge(work.size)
        self._sending_changed.set()
        spilled = [segment.segment for segment in work.from_parts]
        completed, failed = work.completed, work.failed
        del work  # and with it the lines in memory: sealing from result parts takes memory of its own
        for each in spilled:
            await asyncio.to_thread(self._store.seal_from_parts, each)
        await asyncio.to_thread(self._store.record_progress, completed, failed)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
