"""One visit to a chunk whose lines are answered by the provider's own batch API.

A visit does what can be done at once, records each step before the next, and ends with a pause: nobody is paid while
the provider works. After a crash the next visit goes on from the recorded step (ADR 13).
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec.structs import replace

from nightshift.chunks.chunk import Chunk, ChunkStore, SliceResult, waiting
from nightshift.core.log import logger
from nightshift.submissions.decision import Visit, execution_pause, next_move, round_of
from nightshift.submissions.record import Submission
from nightshift.submissions.steps import Provider, Submissions, SubmissionSteps
from nightshift.submissions.store import CLAIM_SECONDS, ClaimLostError

# A visit starts no step when less is left of its invocation.
STEP_SECONDS = 60.0
# Another worker has the claim. Whatever there is to do, it does.
CLAIMED = SliceResult("wait", round(CLAIM_SECONDS / 2), waits_for="provider", look_seconds=round(CLAIM_SECONDS / 2))


class SubmissionRun:
    """Brings the lines of ``chunk`` to their end with batches of ``provider``."""

    def __init__(
        self,
        chunk: Chunk,
        store: ChunkStore,
        submissions: Submissions,
        provider: Provider,
        visit: Visit,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._submissions = submissions
        self._visit = visit
        self._clock = clock
        self._steps = SubmissionSteps(chunk, store, submissions, provider, visit, clock)

    async def run(self) -> SliceResult | None:
        """Go on until there is a reason to pause; None if the rest of the chunk is to be answered in real time."""
        if not await asyncio.to_thread(self._submissions.claim, self._clock()):
            return CLAIMED
        try:
            async with self._kept_claim():
                return await self._advance()
        except ClaimLostError:
            logger.warning("another worker has the claim on the submission")
            return CLAIMED
        finally:
            await asyncio.to_thread(self._submissions.release)

    @asynccontextmanager
    async def _kept_claim(self) -> AsyncIterator[None]:
        """Renew the claim while the block runs. Once it is lost, nothing can be recorded any more."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(CLAIM_SECONDS / 4)
                await asyncio.to_thread(self._submissions.renew, self._clock())

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _advance(self) -> SliceResult | None:
        submission = await asyncio.to_thread(self._submissions.load)
        while True:
            now = self._clock()
            if now > self._visit.ends_at - STEP_SECONDS:
                return SliceResult("more")
            if submission is not None and submission.step == "realtime":
                return None
            if submission is not None and (pause := await self._pause(submission, now)):
                return self._asleep(pause, now)
            if submission is None or submission.step == "ended":
                following = await self._begin(submission)
                if isinstance(following, SliceResult):
                    return following
            elif pause := await self._route_pause(submission):
                return waiting(pause, "route")
            else:
                following = await self._steps.take(submission)
            await asyncio.to_thread(self._submissions.save, following)
            submission = following

    async def _pause(self, submission: Submission, now: float) -> int:
        """Seconds to wait before the submission's next step; 0 for none."""
        until = submission.not_before
        if _may_wake(submission):
            if until > now and await self._steps.stop_due():
                return 0
            until = min(until, self._visit.times.close_at)
        return max(0, math.ceil(until - now))

    def _asleep(self, pause: int, now: float) -> SliceResult:
        """The end of a visit whose submission waits: the sweep looks after a long pause."""
        asleep = execution_pause(pause, self._visit.times.close_at - now) if self._visit.swept else None
        if asleep is None:
            return waiting(pause, "provider")
        return SliceResult("park", asleep, waits_for="provider", look_seconds=pause)

    async def _route_pause(self, submission: Submission) -> int:
        """Seconds to wait because the route cannot be asked; 0 for none, and for what ends the submission."""
        if submission.step == "deleting" or await self._steps.stop_due():
            return 0
        starts = submission.step in ("uploading", "creating")
        pause = await asyncio.to_thread(self._visit.route.pause, starts=starts)
        return min(pause, max(1, math.ceil(self._visit.times.close_at - self._clock())))

    # --- the next submission -----------------------------------------------------------------------------------

    async def _begin(self, last: Submission | None) -> Submission | SliceResult:
        """The next submission of the chunk, or the end of the visit where there is none."""
        collection = await asyncio.to_thread(self._steps.restored)
        unfinished = list(collection.unfinished())
        sent_to = last.end_line if last else 0
        first_fresh = next((number for number in unfinished if number >= sent_to), None)
        now = self._clock()
        cancelled = await asyncio.to_thread(self._visit.cancelled)
        move = "done" if cancelled else next_move(last, first_fresh, len(unfinished), self._visit.times, now)
        number = last.number + 1 if last else 1
        if move == "give_up":
            await self._steps.answers.give_up(collection, unfinished)
            move = "done"
        if move == "done":
            return SliceResult("done")
        base = last or Submission(number=0, step="ended", since=now)
        if move == "realtime":
            return replace(base, step="realtime", since=now)
        start = first_fresh if first_fresh is not None else unfinished[0]
        # Which lines fit is known when their file is written.
        lines = await asyncio.to_thread(self._steps.write, collection, [one for one in unfinished if one >= start])
        await asyncio.to_thread(self._submissions.put_lines, number, lines)
        self._steps.new = number
        return Submission(
            number=number,
            step="uploading",
            since=now,
            round=round_of(last, first_fresh),
            end_line=lines[-1] + 1,
            lines=len(lines),
            refusals=base.refusals,
            completed=collection.completed,
            failed=collection.failed,
            batch_ids=base.batch_ids,
        )


def _may_wake(submission: Submission) -> bool:
    """Whether the end of the provider's time, or a cancel, ends the submission's pause: it waits for nothing else."""
    if submission.step in ("uploading", "creating"):
        return not submission.create_sent
    return submission.step in ("running", "ended") and not submission.stopping and not submission.failed_calls
