"""One slice of a chunk: a run that keeps requests in flight and stores the lines that are finished.

A run starts from what earlier runs stored, and sends only the lines that are not finished. Two loops work side by side:
one sends requests, the other stores finished lines every few seconds and checks that the batch is still in progress.
After a crash, the next run sends again only the lines that were in flight or not stored yet.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nightshift.chunks.chunk import NO_CARRY, Carry, Chunk, ChunkStore, Deadlines, InputGoneError, SliceResult
from nightshift.chunks.ledger import Ledger
from nightshift.chunks.line_queue import Line, LineQueue
from nightshift.chunks.output import output_line
from nightshift.chunks.run_limits import RunLimits
from nightshift.chunks.storing import restore, seal_stored, store_lines
from nightshift.core.ids import request_line_id
from nightshift.input.layout import Segment
from nightshift.input.request import requests
from nightshift.results.completion import replace_model, set_fields
from nightshift.upstream.answer import Answer, judge
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.pacing import MAX_RETRY_AFTER, Pacer


class Upstream(Protocol):
    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """Post one request. Failures of the upstream and of the network are answers and not exceptions."""
        ...


@dataclass(slots=True)
class Statistics:
    """What a run did: how many requests it sent, sent again after a failure, and had refused; the sum of the seconds
    that its answers took; and whether the input file was deleted."""

    sent: int = 0
    retried: int = 0
    refused: int = 0
    upstream_seconds: float = 0.0
    input_gone: bool = False


class ChunkRun:
    """Answers the lines of ``chunk`` with single requests to ``upstream``, and stores them in ``store``.

    ``budget`` is the one from which ``upstream`` reserves long answers. Finished lines are charged to it until they are
    stored, and no request starts while they fill it. ``carry`` is that of the previous slice.

    Example:
        result = await ChunkRun(chunk, store, upstream, deadlines, budget, carry).run()
    """

    def __init__(
        self,
        chunk: Chunk,
        store: ChunkStore,
        upstream: Upstream,
        deadlines: Deadlines,
        budget: ByteBudget,
        carry: Carry = NO_CARRY,
        *,
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
        # No request starts that may outlast the slice. One that outlasts it all the same, because its answer waited for
        # the byte budget, is left to the next slice.
        self._last_answer_at = deadlines.slice_ends_at - self._limits.slice_margin_seconds
        self._last_start_at = self._last_answer_at - deadlines.request_seconds
        self._pacer = Pacer(
            chunk.concurrency, carry.refusals, carry.resume_at, backoff=self._limits.backoff, rng=self._rng
        )
        self._queue = LineQueue(carry.lines)
        self._ledger = Ledger(self._limits)
        self._unread: deque[Segment] = deque()
        self._reading = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = self._ended = False
        self._sending_changed = asyncio.Event()  # a request may start, or the last one has ended
        self._storing_due = asyncio.Event()  # there is enough to store, or the run has ended
        self.statistics = Statistics()

    @property
    def completed(self) -> int:
        return self._ledger.completed

    @property
    def failed(self) -> int:
        return self._ledger.failed

    async def run(self) -> SliceResult:
        """Send and store until the chunk is done, the slice is over, a long pause is due, or the batch has ended."""
        await asyncio.to_thread(restore, self._ledger, self._chunk.segments, self._store)
        self._unread.extend(self._ledger.incomplete())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store_regularly())
            result = await self._send_all(group)
            for task in self._tasks:
                task.cancel()
            self._ended = True
            self._storing_due.set()
        await self._store_now()
        return result

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
        """How the slice ends while no request is in flight; None if one may start soon."""
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
        """The time from which both the queue and the pacer allow a request."""
        return max(self._queue.next_at, self._pacer.resume_at)

    def _seconds_to_wait(self, now: float) -> float:
        """Seconds until a request may start; at most one, so that the deadlines are noticed in time."""
        may_start = self._queue.in_flight < self._pacer.limit and not self._budget.full
        if may_start and now < self._last_start_at and not self._queue.empty:
            return min(1.0, max(0.01, self._next_start_at() - now))
        return 1.0

    def _start_requests(self, group: asyncio.TaskGroup) -> None:
        while (line := self._next_line()) is not None:
            task = group.create_task(self._send_from(line, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_line(self) -> Line | None:
        """The line to send now, which is in flight from now on; None if no request may start."""
        now = self._clock()
        if (
            self._stopped
            or self._queue.in_flight >= self._pacer.limit
            or self._budget.full
            or now < self._pacer.resume_at
            or now >= self._last_start_at
            or now >= self._expires_at
        ):
            return None
        return self._queue.next(now)

    async def _send_from(self, first: Line, group: asyncio.TaskGroup) -> None:
        """Send ``first``, then line after line until no request may start."""
        line: Line | None = first
        while line is not None:
            started_at = self._clock()
            self.statistics.sent += 1
            line_id = request_line_id(self._chunk.batch_id, line.number)
            answer = await self._upstream.send(line.body, line.idempotency_key(line_id))
            self.statistics.upstream_seconds += self._clock() - started_at
            self._settle(line, answer, started_at)
            self._read_ahead(group)
            line = self._next_line()
            if line is not None:
                self._start_requests(group)
        self._sending_changed.set()

    def _settle(self, line: Line, answer: Answer, started_at: float) -> None:
        """Record the line as finished, or queue it again."""
        now = self._clock()
        verdict = judge(answer, line.tries + 1)
        line.answers += answer.failure in (None, "too_long", "not_json")
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
            self._queue.delay(line, now + max(pause, self._pacer.delay(line.tries)))
            return
        self._queue.finish(line)
        output = output_line(self._chunk, line, answer)
        if self._ledger.record(output):
            self._budget.charge(output.size)
            if self._ledger.store_is_due:
                self._storing_due.set()

    async def _await_last_answers(self) -> None:
        """Start no more requests, and wait a short time for those in flight."""
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

    async def _read(self, segment: Segment) -> None:
        try:
            block = await asyncio.to_thread(self._store.read, segment)
        except InputGoneError:
            # The lines that were read before can still be answered.
            self.statistics.input_gone = True
            self._unread.clear()
        else:
            now = self._clock()
            for number, request in zip(segment.line_numbers, requests(block), strict=True):
                if not self._ledger.is_finished(number):
                    self._queue.add(Line(number, request.custom_id, self._upstream_body(bytes(request.body))), now)
        self._reading = False
        self._sending_changed.set()

    def _upstream_body(self, body: bytes) -> bytes:
        """The body of a line as the upstream gets it: with its name of the model, and the route's ``extra_body``."""
        body = replace_model(body, self._chunk.upstream_model)
        return set_fields(body, self._chunk.extra_body) if self._chunk.extra_body else body

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
        stored = await store_lines(self._ledger, self._store, self._budget)
        self._sending_changed.set()
        await seal_stored(stored, self._store)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for ``event``, but not longer than ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
