"""One slice of a chunk: a run that keeps requests in flight and stores the lines that are finished.

A run starts from what earlier runs stored, and sends only the lines that are not finished. Two loops work side by side:
one sends requests, the other stores finished lines every few seconds and checks that the batch is still in progress.
After a crash, the next run sends again only the lines that were in flight or not stored yet.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from nightshift.chunks import chunk as chunks
from nightshift.chunks.breaker import Breaker
from nightshift.chunks.chunk import NO_CARRY, Carry, ChunkStore, SliceResult, waiting
from nightshift.chunks.ledger import Ledger
from nightshift.chunks.line_queue import Line, LineQueue
from nightshift.chunks.meter import Meter
from nightshift.chunks.output import output_line
from nightshift.chunks.reading import Reader
from nightshift.chunks.run_limits import RunLimits
from nightshift.chunks.storing import Storing
from nightshift.chunks.tenure import Tenure
from nightshift.chunks.throttle import Throttle
from nightshift.core.ids import request_line_id
from nightshift.core.log import logger
from nightshift.routes.health import Trouble
from nightshift.upstream.answer import Answer
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.pacing import MAX_RETRY_AFTER


class ChunkRun:
    """Answers the lines of ``chunk`` with single requests to ``upstream``, and stores them in ``store``.

    ``budget`` is the one from which ``upstream`` reserves long answers. Finished lines are charged to it until they are
    stored, and no request starts while they fill it. ``carry`` is that of the previous slice. ``tenure`` is the run's
    part of its route; without one, the chunk's concurrency alone bounds it. ``meter`` bounds its cost, if there is one.

    Example:
        result = await ChunkRun(chunk, store, upstream, deadlines, budget, carry).run()
    """

    def __init__(
        self,
        chunk: chunks.Chunk,
        store: ChunkStore,
        upstream: chunks.Upstream,
        deadlines: chunks.Deadlines,
        budget: ByteBudget,
        carry: Carry = NO_CARRY,
        *,
        tenure: Tenure | None = None,
        meter: Meter | None = None,
        limits: RunLimits | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._chunk = chunk
        self._store = store
        self._upstream = upstream
        self._budget = budget
        self._tenure = tenure
        self._limits = limits or RunLimits()
        self._clock = clock
        self._deadlines = deadlines
        self._expires_at = deadlines.batch_expires_at
        # A request that has no answer then is left to the next slice.
        self._last_answer_at = deadlines.slice_ends_at - self._limits.slice_margin_seconds
        self._throttle = Throttle(chunk.concurrency, carry, tenure, self._limits.backoff, rng or random.Random(), meter)
        self._queue = LineQueue(carry.lines)
        self._ledger = Ledger(self._limits)
        if meter:
            meter.follow(self._ledger)
        self._storing = Storing(self._ledger, store, budget, self._throttle.answer_seconds)
        self._reader = Reader(chunk, store, self._ledger, self._queue, self._limits.tick_seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = self._ended = False
        self._sending_changed = asyncio.Event()  # a request may start, or the last one has ended
        self._storing_due = asyncio.Event()  # there is enough to store, or the run has ended
        self._breaker = Breaker()
        self.statistics = chunks.Statistics()

    @property
    def completed(self) -> int:
        return self._ledger.completed

    @property
    def failed(self) -> int:
        return self._ledger.failed

    @property
    def input_gone(self) -> bool:
        """Whether the input file was deleted."""
        return self._reader.input_gone

    @property
    def trouble(self) -> Trouble | None:
        """Why the route, and not a line, was found to be at fault; the run has ended then."""
        return self._breaker.trouble

    @property
    def wanted(self) -> int:
        """How many requests the run could have in flight."""
        return min(self._chunk.concurrency, self._lines)

    @property
    def _lines(self) -> int:
        return self._queue.unfinished + self._reader.lines_left

    async def run(self) -> SliceResult:
        """Send and store until the chunk is done, the slice is over, a long pause is due, or the batch has ended."""
        await asyncio.to_thread(self._storing.restore, self._chunk.segments)
        self._throttle.begin(self._last_answer_at, self._deadlines.request_seconds, self._clock())
        self._reader.begin(self._ledger.incomplete())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store_regularly())
            result = await self._send_all(group)
            for task in self._tasks:
                task.cancel()
            self._ended = True
            self._storing_due.set()
        give_up_at = self._deadlines.slice_ends_at - self._limits.giving_up_seconds
        await self._storing.store_the_rest(lambda: self._clock() < give_up_at, self._limits.tick_seconds)
        return result

    # --- sending ---------------------------------------------------------------------------------------------

    async def _send_all(self, group: asyncio.TaskGroup) -> SliceResult:
        while True:
            now = self._clock()
            if self._stopped or now >= self._expires_at:
                await self._await_last_answers()
                return SliceResult("more", carry=self._carry()) if self.trouble else SliceResult("done")
            if now >= self._last_answer_at:
                return SliceResult("more", carry=self._carry())
            self._read_ahead(group)
            self._start_requests(group)
            if not self._queue.in_flight and not self._reader.busy:
                result = self._idle(now)
                if result is not None:
                    return result
            self._sending_changed.clear()
            await _wait(self._sending_changed, self._seconds_to_wait(now))

    def _idle(self, now: float) -> SliceResult | None:
        """How the slice ends while no request is in flight; None if one may start soon."""
        if self._queue.empty and self._reader.ended:
            return SliceResult("done")
        if now >= self._throttle.last_start_at:
            return SliceResult("more", carry=self._carry())
        if self._tenure and not self._tenure.ceiling:
            return waiting(self._tenure.pause, "route", self._carry())
        if spent_pause := self._throttle.spent_pause:
            return waiting(spent_pause, "spend_limit", self._carry())
        pause = self._next_start_at(now) - now
        if pause <= self._limits.long_pause_seconds:
            return None
        seconds = max(1, round(min(pause, self._limits.max_wait_seconds, self._expires_at - now)))
        return SliceResult("wait", seconds, self._carry(), "retries")

    def _next_start_at(self, now: float) -> float:
        """The time from which both the queue and the throttle allow a request."""
        return max(self._queue.next_at, self._throttle.resume_at(now))

    def _seconds_to_wait(self, now: float) -> float:
        """Seconds until a request may start; at most one, so that the deadlines are noticed in time."""
        may_start = self._queue.in_flight < self._throttle.limit and not self._budget.full
        if may_start and now < self._throttle.last_start_at and not self._queue.empty:
            return min(1.0, max(0.01, self._next_start_at(now) - now))
        return 1.0

    def _start_requests(self, group: asyncio.TaskGroup) -> None:
        while (line := self._next_line()) is not None:
            task = group.create_task(self._send_from(line, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_line(self) -> Line | None:
        """The line to send now, which is in flight from now on; None if no request may start."""
        now = self._clock()
        if self._stopped or self._budget.full or self._storing.failing or now >= self._expires_at:
            return None
        if not self._throttle.may_start(now, self._queue.in_flight):
            if self._throttle.ran_dry:
                self._storing_due.set()  # the meter takes another portion
            return None
        line = self._queue.next(now)
        if line and self._tenure and self._queue.empty and self._reader.ended:
            self._storing_due.set()  # the tenure gives back what no line needs
        return line

    def _read_ahead(self, group: asyncio.TaskGroup) -> None:
        """Read the next segment before the ready lines run out."""
        enough = self._queue.ready >= 2 * self._throttle.limit or self._queue.body_bytes >= self._limits.body_bytes
        if not self._stopped and not enough:
            self._reader.read_next(group, self._clock, self._sending_changed.set)

    async def _send_from(self, first: Line, group: asyncio.TaskGroup) -> None:
        """Send ``first``, then line after line until no request may start."""
        line: Line | None = first
        while line is not None:
            await self._answer(line)
            self._read_ahead(group)
            line = self._next_line()
            if line is not None:
                self._start_requests(group)
        self._sending_changed.set()

    async def _answer(self, line: Line) -> None:
        """Send the line. A function of its own, so that its answer is not in memory while the next one is awaited."""
        started_at = self._clock()
        self.statistics.sent += 1
        self._throttle.started(line.body, started_at)
        line_id = request_line_id(self._chunk.batch_id, line.number)
        answer = await self._upstream.send(line.body, line.idempotency_key(line_id))
        self.statistics.upstream_seconds += self._clock() - started_at
        self._settle(line, answer, started_at)

    def _settle(self, line: Line, answer: Answer, started_at: float) -> None:
        """Record the line as finished, or queue it again."""
        now = self._clock()
        verdict = self._breaker.verdict(line.number, line.tries + 1, answer)
        line.answers += answer.failure in (None, "too_long", "not_json")
        if verdict == "route":
            # Once it is certain, requests in flight may still be answered, and no others are sent.
            self._stopped = self._stopped or self.trouble is not None
            self._queue.delay(line, now + self._throttle.delay(line.answers))
            return
        if verdict == "not_now":
            self.statistics.refused += 1
            self._queue.delay(line, self._throttle.refused(answer, started_at, now))
            if self._tenure and self._breaker.is_down(answer, self._throttle.refusals):
                self._stopped = True
            return
        line.tries += 1
        self._throttle.answered(line.body, answer, started_at, now)
        if verdict == "retry":
            self.statistics.retried += 1
            pause = max(min(answer.retry_after or 0.0, MAX_RETRY_AFTER), self._throttle.delay(line.tries))
            self._queue.delay(line, now + pause)
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
        now = self._clock()
        return replace(self._throttle.carry(now), lines=self._queue.carry(now))

    # --- storing ---------------------------------------------------------------------------------------------

    async def _store_regularly(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = self._limits.first_store_seconds
        store_at = clock() + pause
        while not self._ended:
            await _wait(self._storing_due, min(self._limits.tick_seconds, max(0.0, store_at - clock())))
            self._storing_due.clear()
            whole = self._storing.failing or clock() >= store_at  # a round that stores nothing would always succeed
            if whole:
                pause = min(self._limits.store_seconds, 2 * pause)
                store_at = clock() + pause
            await self._storing.try_to_store(whole)
            self._sending_changed.set()
            if self._ended:
                return
            await self._check_batch()
            await self._throttle.renew(self._lines, self.wanted, self._queue.in_flight, self._clock())
            self._sending_changed.set()

    async def _check_batch(self) -> None:
        """Stop if the batch has ended, or another run has the chunk."""
        try:
            in_progress = await asyncio.to_thread(self._store.in_progress)
        except Exception:
            logger.exception("batch not read")  # the next time will do
        else:
            self._stopped = self._stopped or not in_progress


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for ``event``, but not longer than ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
