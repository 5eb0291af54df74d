"""The steps of a submission: each does one thing at the provider, and returns the submission to record after it.

Every step can run twice: what the provider would count twice is looked for first.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from nightshift.chunks.chunk import Chunk, ChunkStore
from nightshift.core.log import logger
from nightshift.submissions.answers import ProviderAnswers
from nightshift.submissions.collection import Collection
from nightshift.submissions.decision import (
    CANCEL_SECONDS,
    FIRST_POLL_SECONDS,
    GONE_SECONDS,
    LATE_FILES_SECONDS,
    LOOKUP_SECONDS,
    MAX_ROUNDS,
    Visit,
    closing_pause,
    poll_pause,
    refusal_of,
    retry_pause,
    seconds_left,
    seen,
    trouble_in,
)
from nightshift.submissions.file import provider_lines, write_provider_file
from nightshift.submissions.provider import LineError, ProviderBatch, ProviderError
from nightshift.submissions.record import Submission, name_of

# How often the deletion of a provider's files is tried.
DELETE_TRIES = 3
# What collecting leaves of an invocation, to store what is in memory.
CLOSING_SECONDS = 30.0


class Provider(Protocol):
    """The provider's batch API; see ``submissions.client.BatchClient``. Every call may raise ``ProviderError``."""

    async def upload(self, name: str, path: Path) -> str: ...
    async def find_files(self, name: str) -> list[str]: ...
    async def delete_file(self, file_id: str) -> None: ...
    def read_lines(self, file_id: str) -> AsyncIterator[bytes]: ...
    async def create(self, name: str, file_id: str, endpoint: str) -> ProviderBatch: ...
    async def find(self, name: str, file_id: str) -> ProviderBatch | None: ...
    async def get(self, batch_id: str) -> ProviderBatch: ...
    async def cancel(self, batch_id: str) -> None: ...


class Submissions(Protocol):
    """Where the chunk's submissions are recorded; see ``submissions.store.SubmissionStore``. Every method blocks."""

    def claim(self, now: float) -> bool: ...
    def renew(self, now: float) -> None: ...
    def release(self) -> None: ...
    def load(self) -> Submission | None: ...
    def save(self, submission: Submission) -> None: ...
    def put_lines(self, number: int, lines: Sequence[int]) -> None: ...
    def lines(self, number: int) -> list[int]: ...


class SubmissionSteps:
    """The steps of ``chunk``'s submissions; ``new`` is the number of the one whose file only this visit has written."""

    def __init__(
        self,
        chunk: Chunk,
        store: ChunkStore,
        submissions: Submissions,
        provider: Provider,
        visit: Visit,
        clock: Callable[[], float],
    ) -> None:
        self._chunk = chunk
        self._store = store
        self._submissions = submissions
        self._provider = provider
        self._visit = visit
        self._clock = clock
        self._file = visit.folder / "lines"
        self.answers = ProviderAnswers(chunk, store)
        self.new: int | None = None

    async def take(self, submission: Submission) -> Submission:
        """The submission after its next step, or after a call that failed."""
        steps = {
            "uploading": self._upload,
            "creating": self._create,
            "running": self._poll,
            "collecting": self._collect,
            "deleting": self._delete,
        }
        try:
            after = await steps[submission.step](submission)
        except ProviderError as error:
            logger.warning(
                "call to the provider failed", step=submission.step, provider_status=error.status, words=error.message
            )
            self.new = None
            return await self._failed(submission, error)
        if not after.failed_calls:
            await asyncio.to_thread(self._visit.route.answers)
        return after

    async def _failed(self, submission: Submission, error: ProviderError) -> Submission:
        """The submission after a call that failed: the step is tried again after a growing pause, or the route's."""
        failed = submission.failed_calls + 1
        pause = retry_pause(failed, error.retry_after)
        if (trouble := trouble_in(error)) is not None:
            route_pause = await asyncio.to_thread(self._visit.route.report, trouble)
            pause = pause if submission.step == "deleting" else route_pause  # nothing is left to answer
        return replace(submission, failed_calls=failed, not_before=self._clock() + pause, problem=error.message)

    def over(self) -> bool:
        """Whether the invocation is about to end."""
        return self._clock() > self._visit.ends_at - CLOSING_SECONDS

    async def stop_due(self) -> bool:
        """Whether no more is to be asked of the provider: the caller has cancelled, or the time for it is over."""
        if self._visit.times.stop_due(self._clock()):
            return True
        return await asyncio.to_thread(self._visit.cancelled)

    def restored(self) -> Collection:
        """The finished lines of the chunk, from its seals and result parts. Blocks."""
        segments = self._chunk.segments
        collection = Collection(segments, self._store.seals(segments))
        if collection.open:
            first, end = collection.open[0].first_line, collection.open[-1].end_line
            for part in self._store.result_parts(first, end):
                collection.restore(part)
        return collection

    def write(self, collection: Collection, wanted: Sequence[int]) -> list[int]:
        """Write the provider's file; the numbers of those ``wanted`` lines that fit. Blocks."""
        lines = provider_lines(self._chunk, self._store, collection.open, wanted, self._visit.endpoint)
        return write_provider_file(lines, self._visit.api, self._file)

    async def _upload(self, submission: Submission) -> Submission:
        name = self._name(submission)
        if await self.stop_due():
            return _moved(submission, "deleting", self._clock())
        if self.new != submission.number:
            # An earlier visit may have uploaded the file without recording its id.
            for file_id in await self._provider.find_files(name):
                await self._provider.delete_file(file_id)
            lines = await asyncio.to_thread(self._submissions.lines, submission.number)
            collection = Collection(self._chunk.segments, [None] * len(self._chunk.segments))
            await asyncio.to_thread(self.write, collection, lines)
        file_id = await self._provider.upload(name, self._file)
        self._file.unlink()
        self.new = None
        return _moved(submission, "creating", self._clock(), file_id=file_id, create_sent=False)

    async def _create(self, submission: Submission) -> Submission:
        name, file_id = self._name(submission), submission.file_id or ""
        if submission.create_sent:
            return await self._look_up(submission)
        if await self.stop_due():
            return _moved(submission, "deleting", self._clock())
        # The claim outlasts the call, so whoever has it next finds the batch, if there is one.
        await asyncio.to_thread(self._submissions.renew, self._clock())
        sent = replace(submission, create_sent=True, since=self._clock())
        await asyncio.to_thread(self._submissions.save, sent)
        try:
            batch = await self._provider.create(name, file_id, self._visit.endpoint)
        except ProviderError as error:
            if not error.refused:
                return replace(sent, not_before=self._clock() + FIRST_POLL_SECONDS, problem=error.message)
            refused = replace(sent, create_sent=False, problem=error.message)
            if error.errors and trouble_in(error) is None:
                return await self._refused(refused, error.errors)
            return await self._failed(refused, error)
        return self._running(sent, batch)

    async def _look_up(self, submission: Submission) -> Submission:
        """Find the batch that may have been created. While it may only be late, nothing is created."""
        batch = await self._provider.find(self._name(submission), submission.file_id or "")
        if batch is not None:
            return self._running(submission, batch)
        now = self._clock()
        if now < submission.since + LOOKUP_SECONDS:
            return replace(submission, not_before=now + LOOKUP_SECONDS / 8, failed_calls=0)
        # Without its file, a batch that still turns up cannot run.
        await self._provider.delete_file(submission.file_id or "")
        return _moved(submission, "uploading", now, file_id=None, create_sent=False)

    def _running(self, submission: Submission, batch: ProviderBatch) -> Submission:
        logger.info("batch submitted", provider_batch_id=batch.id, lines=submission.lines, round=submission.round)
        return _moved(
            submission,
            "running",
            self._clock(),
            batch_id=batch.id,
            not_before=self._clock() + poll_pause(submission.lines, 0),
            batch_ids=[*submission.batch_ids, batch.id],
        )

    async def _poll(self, submission: Submission) -> Submission:
        now = self._clock()
        try:
            batch = await self._provider.get(submission.batch_id or "")
        except ProviderError as error:
            if error.status != 404 or now < submission.since + GONE_SECONDS:
                raise
            return _moved(submission, "deleting", now, problem=error.message)
        after = seen(submission, batch, now)
        if after.started_at is not None:
            if submission.started_at is None:
                await asyncio.to_thread(self._visit.started)
            done = after.completed + after.answered
            await asyncio.to_thread(self._store.record_progress, done, after.failed)
        if batch.status == "failed":
            return await self._refused(after, batch.errors)
        if after.step == "collecting":
            return after
        if not batch.ended and not after.stopping and await self.stop_due():
            await self._provider.cancel(batch.id)
            return replace(after, stopped_at=now, not_before=now + 1)
        stopped_at = after.stopped_at
        if stopped_at is not None and now > stopped_at + CANCEL_SECONDS:
            files = {"output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id}
            return _moved(after, "collecting", now, **files)
        closing_since = after.ended_at or stopped_at
        if closing_since is not None:
            return replace(after, not_before=now + closing_pause(now - closing_since))
        return replace(after, not_before=now + poll_pause(after.lines, now - after.since, seconds_left(after, now)))

    async def _collect(self, submission: Submission) -> Submission:
        now = self._clock()
        collection = await asyncio.to_thread(self.restored)
        wanted = set(await asyncio.to_thread(self._submissions.lines, submission.number))
        last = submission.round >= MAX_ROUNDS or (submission.stopping and self._visit.times.rescue_at is None)
        await self.answers.expect(collection, wanted)
        for file_id in (submission.output_file_id, submission.error_file_id):
            if file_id is None:
                continue
            try:
                if not await self.answers.collect(self._provider.read_lines(file_id), collection, last, self.over):
                    return submission
            except ProviderError as error:
                if error.status != 404 or now < submission.since + LATE_FILES_SECONDS:
                    raise
        await self.answers.store(collection)
        done = {"completed": collection.completed, "failed": collection.failed, "answered": 0, "refusals": 0}
        return _moved(submission, "deleting", now, **done)

    async def _refused(self, submission: Submission, errors: Sequence[LineError]) -> Submission:
        """The provider has refused the batch as a whole: none of its lines was sent."""
        lines = await asyncio.to_thread(self._submissions.lines, submission.number)
        reason = refusal_of(errors)
        wrong = {lines[error.line - 1]: error for error in errors if error.line and 0 < error.line <= len(lines)}
        refusals = submission.refusals + 1
        pause = retry_pause(refusals)
        if reason == "lines" and wrong:
            collection = await asyncio.to_thread(self.restored)
            await self.answers.refuse(collection, wrong)
            refusals, pause = 0, 0.0
        words = next((error.message for error in errors if error.message), None)
        logger.warning("batch refused by the provider", reason=reason, words=words, lines_refused=len(wrong))
        return _moved(
            submission,
            "deleting",
            self._clock(),
            end_line=lines[0] if lines else 0,
            refusals=refusals,
            not_before=self._clock() + pause,
            problem=words or submission.problem,
        )

    async def _delete(self, submission: Submission) -> Submission:
        """Delete the provider's copies of the files. What cannot be deleted does not hold the batch."""
        ids = [submission.file_id, submission.output_file_id, submission.error_file_id]
        try:
            if submission.file_id is None:
                ids = [*await self._provider.find_files(self._name(submission))]
            for file_id in filter(None, ids):
                await self._provider.delete_file(file_id)
        except ProviderError as error:
            if submission.failed_calls + 1 < DELETE_TRIES:
                raise
            logger.warning("provider's file not deleted", words=error.message, provider_batch_id=submission.batch_id)
        return replace(submission, step="ended", since=self._clock(), failed_calls=0)

    def _name(self, submission: Submission) -> str:
        return name_of(self._chunk.batch_id, self._visit.chunk_number, submission.number)


def _moved(submission: Submission, step: str, now: float, **changes: object) -> Submission:
    """The submission in its next step."""
    return replace(submission, **{"step": step, "since": now, "failed_calls": 0, "not_before": 0.0, **changes})
