"""The lines of a chunk are read from the input segment by segment, a little ahead of their sending."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from nightshift.chunks.chunk import Chunk, ChunkStore, InputGoneError
from nightshift.chunks.ledger import Ledger
from nightshift.chunks.line_queue import Line, LineQueue
from nightshift.core.log import logger
from nightshift.input.layout import Segment
from nightshift.input.request import requests


class Reader:
    """Reads what ``ledger`` has not finished into ``queue``.

    After a failure the segment is read again, ``pause`` seconds later.
    """

    def __init__(self, chunk: Chunk, store: ChunkStore, ledger: Ledger, queue: LineQueue, pause: float) -> None:
        self.input_gone = False
        self._chunk = chunk
        self._store = store
        self._ledger = ledger
        self._queue = queue
        self._pause = pause
        self._unread: deque[Segment] = deque()
        self._reading: Segment | None = None

    def begin(self, segments: Sequence[Segment]) -> None:
        self._unread.extend(segments)

    @property
    def busy(self) -> bool:
        """Whether a segment is being read."""
        return self._reading is not None

    @property
    def ended(self) -> bool:
        """Whether all lines have been read."""
        return not self._unread and not self.busy

    @property
    def lines_left(self) -> int:
        """The number of lines in segments that are not read yet, or are being read."""
        return sum(segment.lines for segment in self._unread) + (self._reading.lines if self._reading else 0)

    def read_next(self, group: asyncio.TaskGroup, clock: Callable[[], float], then: Callable[[], None]) -> None:
        """Begin to read the next segment, if there is one and none is being read; ``then`` is called at the end."""
        if self._unread and not self.busy:
            self._reading = self._unread.popleft()
            group.create_task(self._read(self._reading, clock, then))

    async def _read(self, segment: Segment, clock: Callable[[], float], then: Callable[[], None]) -> None:
        try:
            block = await asyncio.to_thread(self._store.read, segment)
        except InputGoneError:
            # The lines that were read before can still be answered.
            self.input_gone = True
            self._unread.clear()
        except Exception:
            logger.exception("input not read")
            await asyncio.sleep(self._pause)
            self._unread.appendleft(segment)
        else:
            self._add(segment, block, clock())
        self._reading = None
        then()

    def _add(self, segment: Segment, block: bytes, now: float) -> None:
        for number, request in zip(segment.line_numbers, requests(block), strict=True):
            if not self._ledger.is_finished(number):
                body = self._chunk.upstream_body(bytes(request.body))
                self._queue.add(Line(number, request.custom_id, body), now)
