"""How a ledger and a chunk store meet: the ledger starts from what is stored, and what it finishes is stored."""

import asyncio
from collections.abc import Callable

from nightshift.batches.progress import AnswerSeconds
from nightshift.chunks.chunk import ChunkStore
from nightshift.chunks.ledger import Ledger
from nightshift.core.log import logger
from nightshift.input.layout import Segment
from nightshift.upstream.byte_budget import ByteBudget


class Storing:
    """Stores what ``ledger`` has finished in ``store``, and discharges it from ``budget``.

    ``answer_seconds`` gives what is recorded with the progress.

    While the store fails, finished lines stay in memory; ``failing`` says so, because nothing more should be sent then.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: ChunkStore,
        budget: ByteBudget,
        answer_seconds: Callable[[], AnswerSeconds | None] = lambda: None,
    ) -> None:
        self.failing = False
        self._ledger = ledger
        self._store = store
        self._budget = budget
        self._answer_seconds = answer_seconds
        self._spilled: list[Segment] = []  # complete, and in result parts
        self._progress = self._recorded = (-1, -1)

    def restore(self, segments: list[Segment]) -> None:
        """Start the ledger from the seals and the result parts that earlier runs stored. Blocks."""
        unsealed = self._ledger.restore_seals(segments, self._store.seals(segments))
        if unsealed:
            for part in self._store.result_parts(unsealed[0].first_line, unsealed[-1].end_line):
                self._ledger.restore_part(part)

    async def store(self, whole: bool = True) -> None:
        """Store all that is finished; without ``whole`` only complete segments, and lines that fill a result part.

        Raises what the store raises; nothing is lost then, and the next call goes on.
        """
        try:
            await self._store_lines(whole)
            await self._seal_spilled()
            await self._record_progress()
        except Exception:
            self.failing = True
            raise
        self.failing = False

    async def try_to_store(self, whole: bool = True) -> None:
        """As ``store``; a failure is logged, and ``failing`` until a later call succeeds."""
        try:
            await self.store(whole)
        except Exception:
            logger.exception("results not stored")

    async def store_the_rest(self, has_time: Callable[[], bool], pause: float) -> None:
        """Store all that is finished, and try again every ``pause`` seconds as long as there is time."""
        while has_time():
            await self.try_to_store()
            if not self.failing:
                return
            await asyncio.sleep(pause)
        await self.store()

    async def _store_lines(self, whole: bool) -> None:
        """Seal complete segments, and write the other finished lines as result parts."""
        unstored = self._ledger.take_unstored(whole)
        try:
            for segment, lines in unstored.seals:
                await asyncio.to_thread(self._store.seal, segment, lines)
            for part in unstored.parts:
                await asyncio.to_thread(self._store.write_result_part, part)
        except BaseException:
            self._ledger.put_back(unstored)
            raise
        self._ledger.stored(unstored)
        self._budget.discharge(unstored.size)
        self._spilled += unstored.seals_from_parts
        self._progress = (unstored.completed, unstored.failed)

    async def _seal_spilled(self) -> None:
        """Seal segments from result parts.

        This is a step of its own, because it takes as much memory as ``_store_lines`` has freed.
        """
        while self._spilled:
            await asyncio.to_thread(self._store.seal_from_parts, self._spilled[0])
            del self._spilled[0]

    async def _record_progress(self) -> None:
        if self._progress != self._recorded:
            progress = self._progress
            await asyncio.to_thread(self._store.record_progress, *progress, self._answer_seconds())
            self._recorded = progress
