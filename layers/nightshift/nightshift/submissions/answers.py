"""From the lines of a provider's batch files to the finished lines of a chunk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Set

import msgspec
from msgspec.structs import replace

from nightshift.chunks.chunk import Chunk, ChunkStore
from nightshift.chunks.line_queue import Line
from nightshift.chunks.output import output_line
from nightshift.core.log import logger
from nightshift.input.request import requests
from nightshift.results.line import OutputLine, failed_line
from nightshift.submissions.collection import Collection
from nightshift.submissions.lines import LineAnswer, read_answer
from nightshift.submissions.provider import LineError
from nightshift.upstream.answer import Answer

# Answers in memory before they are stored.
HELD_BYTES = 32 * 1024 * 1024
NO_ANSWER = ("upstream_unreachable", "The provider's batch API gave no answer to this request.")


class ProviderAnswers:
    """Turns what a provider answers into finished lines, and stores them in ``store``.

    Example:
        await answers.expect(collection, wanted)
        await answers.collect(client.read_lines(file_id), collection, False, lambda: False)
        await answers.store(collection)
    """

    def __init__(self, chunk: Chunk, store: ChunkStore) -> None:
        self._chunk = chunk
        self._store = store
        self._custom_ids: dict[int, str] = {}

    async def expect(self, collection: Collection, wanted: Set[int]) -> None:
        """Read the ``custom_id`` of each of the ``wanted`` lines. Answers to other lines are none of ours."""
        self._custom_ids = await asyncio.to_thread(self._read_custom_ids, collection, wanted)

    def _read_custom_ids(self, collection: Collection, wanted: Set[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for segment in collection.open:
            if wanted.isdisjoint(segment.line_numbers):
                continue
            lines = zip(segment.line_numbers, requests(self._store.read(segment)), strict=True)
            found |= {number: request.custom_id for number, request in lines if number in wanted}
        return found

    async def collect(
        self, lines: AsyncIterator[bytes], collection: Collection, last: bool, over: Callable[[], bool]
    ) -> bool:
        """Take the answers of one file. Those that may change when they are sent again count only the ``last`` time.

        Returns False if the time was ``over`` before the file's end; what was read is stored then.
        """
        unknown = 0
        async for content in lines:
            found = read_answer(content)
            if found is None or found.number not in self._custom_ids:
                unknown += 1
            elif found.final or last:
                collection.add(self._finished(found))
            if collection.held_bytes > HELD_BYTES:
                await self._write(collection)
            if over():
                await self.store(collection)
                return False
        if unknown:
            logger.warning("lines of the provider's file are of no request", lines=unknown)
        return True

    def _finished(self, found: LineAnswer) -> OutputLine:
        custom_id = self._custom_ids[found.number]
        if found.answer is None:
            return self._failed(found.number, custom_id, found.error_code, found.error)
        line = output_line(self._chunk, Line(found.number, custom_id, b""), found.answer)
        return replace(line, by_batch=True)

    def _failed(self, number: int, custom_id: str, code: str, message: str) -> OutputLine:
        line = failed_line(self._chunk.batch_id, number, custom_id, code, message)
        return replace(line, by_batch=True)

    async def refuse(self, collection: Collection, wrong: Mapping[int, LineError]) -> None:
        """Finish the lines that the provider refuses, each with the provider's own error."""
        await self.expect(collection, wrong.keys())
        for number, error in wrong.items():
            if number in self._custom_ids:
                collection.add(self._finished(LineAnswer(number, Answer(400, _error_body(error)))))
        await self.store(collection)

    async def give_up(self, collection: Collection, numbers: Iterable[int]) -> None:
        """Finish lines that the provider does not answer."""
        await self.expect(collection, set(numbers))
        for number, custom_id in self._custom_ids.items():
            collection.add(self._failed(number, custom_id, *NO_ANSWER))
        await self.store(collection)

    async def store(self, collection: Collection) -> None:
        """Store what is in memory, seal complete segments, and record the progress."""
        await self._write(collection)
        for segment in collection.complete():
            await asyncio.to_thread(self._store.seal_from_parts, segment)
        await asyncio.to_thread(self._store.record_progress, collection.completed, collection.failed)

    async def _write(self, collection: Collection) -> None:
        for segment, lines in collection.take_whole():
            await asyncio.to_thread(self._store.seal, segment, lines)
        for lines in collection.take():
            await asyncio.to_thread(self._store.write_result_part, lines)


def _error_body(error: LineError) -> bytes:
    """A provider's error about a line in the form of its answers."""
    fields = {
        "message": (error.message or "The provider refused this request.")[:2000],
        "type": "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
    return msgspec.json.encode({"error": fields})
