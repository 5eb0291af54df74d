"""The lines of a chunk that are not finished: ready to be sent, delayed, or in flight.

Each line is in exactly one of the three until it is finished. Nothing here sends, waits or reads a clock.
"""

import heapq
from collections import deque
from collections.abc import Mapping

from msgspec import Struct

# How often a line was tried, and the time before which it must not be sent again.
CarriedLine = tuple[int, float]

# The state of Step Functions is at most 256 KiB long. So many lines fit, with space for the rest of the state.
MAX_CARRIED_LINES = 5_000


class Line(Struct, eq=False):
    """One request of the input.

    ``tries`` counts its answers so far without refusals, failures included; ``answers`` counts what the upstream has
    answered, refusals included.
    """

    number: int
    custom_id: str
    body: bytes
    tries: int = 0
    answers: int = 0

    def idempotency_key(self, line_id: str) -> str:
        """The same key until an answer was received: an upstream that replays answers would repeat the failure."""
        return f"{line_id}-{self.answers}" if self.answers else line_id


class LineQueue:
    """Lines in the order in which they may be sent. Times are seconds on one clock.

    ``carried`` is what ``carry()`` of the previous slice returned. It applies to a line when the line is added.
    ``body_bytes`` is the size of all request bodies, those in flight included.

    Example:
        queue.add(line, now)
        line = queue.next(now)  # in flight
        queue.delay(line, until)  # or queue.finish(line)
    """

    def __init__(
        self, carried: Mapping[int, CarriedLine] | None = None, *, max_carried: int = MAX_CARRIED_LINES
    ) -> None:
        self._carried = dict(carried or {})
        self._max_carried = max_carried
        self._ready: deque[Line] = deque()
        self._delayed: list[tuple[float, int, Line]] = []
        self._in_flight: set[Line] = set()
        self.body_bytes = 0

    @property
    def ready(self) -> int:
        """The number of lines that may be sent at once."""
        return len(self._ready)

    @property
    def in_flight(self) -> int:
        """The number of lines that ``next`` returned and that are neither delayed nor finished since."""
        return len(self._in_flight)

    @property
    def unfinished(self) -> int:
        """The number of all lines that are ready, delayed or in flight."""
        return len(self._ready) + len(self._delayed) + len(self._in_flight)

    @property
    def empty(self) -> bool:
        """Whether no line is ready or delayed. A line in flight may still be delayed."""
        return not self._ready and not self._delayed

    @property
    def next_at(self) -> float:
        """The time from which ``next`` returns a line; 0 if a line is ready, or if there is none."""
        return 0.0 if self._ready or not self._delayed else self._delayed[0][0]

    def add(self, line: Line, now: float) -> None:
        """Queue a line that was read from the input."""
        self.body_bytes += len(line.body)
        line.tries, not_before = self._carried.pop(line.number, (0, 0.0))
        if not_before > now:
            self.delay(line, not_before)
        else:
            self._ready.append(line)

    def next(self, now: float) -> Line | None:
        """The line to send next, which is in flight from now on: a delayed one that is due, or the first ready one."""
        if self._delayed and self._delayed[0][0] <= now:
            line = heapq.heappop(self._delayed)[2]
        elif self._ready:
            line = self._ready.popleft()
        else:
            return None
        self._in_flight.add(line)
        return line

    def delay(self, line: Line, until: float) -> None:
        """Queue the line again. It is not sent before ``until``."""
        self._in_flight.discard(line)
        heapq.heappush(self._delayed, (until, line.number, line))

    def finish(self, line: Line) -> None:
        """Drop a line in flight whose result is final."""
        self._in_flight.discard(line)
        self.body_bytes -= len(line.body)

    def carry(self, now: float) -> dict[int, CarriedLine]:
        """The tries and delays for the next slice, by line number, of the first ``max_carried`` lines that have any.

        The current try of a line in flight does not count, because its answer is lost when the slice ends.
        """
        lines = self._carried | {line.number: (line.tries, 0.0) for line in self._ready if line.tries}
        lines |= {line.number: (line.tries, 0.0) for line in self._in_flight if line.tries}
        lines |= {line.number: (line.tries, until) for until, _, line in self._delayed if line.tries or until > now}
        return {number: lines[number] for number in sorted(lines)[: self._max_carried]}
