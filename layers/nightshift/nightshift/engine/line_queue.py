"""The lines of a chunk that are not finished: ready to be sent, delayed, or in flight."""

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

# How often a line was tried, and the time before which it must not be sent again.
CarriedLine = tuple[int, float]

# State in Step Functions is at most 256 KiB: that many lines fit, with room for the rest.
MAX_CARRIED_LINES = 5_000


@dataclass(slots=True, eq=False)
class Line:
    """One request of the input. ``tries`` counts the answers so far that were no refusals."""

    number: int
    custom_id: str
    body: bytes
    tries: int = 0


class LineQueue:
    """Lines in the order in which they may be sent. Times are seconds on one clock.

    ``carried`` is what the previous slice's ``carry()`` gave: it applies to each line when it is added.
    """

    def __init__(self, carried: Mapping[int, CarriedLine] | None = None) -> None:
        self._carried = dict(carried or {})
        self._ready: deque[Line] = deque()
        self._delayed: list[tuple[float, int, Line]] = []
        self.in_flight: set[Line] = set()
        self.body_bytes = 0

    @property
    def ready(self) -> int:
        """How many lines could be sent at once."""
        return len(self._ready)

    @property
    def empty(self) -> bool:
        """Whether no line waits to be sent. Lines in flight may still come back."""
        return not self._ready and not self._delayed

    @property
    def next_at(self) -> float:
        """From when on ``next`` gives a line: 0 where one is ready, or where there is none."""
        return 0.0 if self._ready or not self._delayed else self._delayed[0][0]

    def add(self, line: Line, now: float) -> None:
        """Take a line that was read from the input."""
        self.body_bytes += len(line.body)
        line.tries, not_before = self._carried.pop(line.number, (0, 0.0))
        if not_before > now:
            self.delay(line, not_before)
        else:
            self._ready.append(line)

    def next(self, now: float) -> Line | None:
        """The next line to send, from now on in flight: a delayed one whose time has come, or the first ready one."""
        if self._delayed and self._delayed[0][0] <= now:
            line = heapq.heappop(self._delayed)[2]
        elif self._ready:
            line = self._ready.popleft()
        else:
            return None
        self.in_flight.add(line)
        return line

    def delay(self, line: Line, until: float) -> None:
        """Send the line again, not before ``until``."""
        self.in_flight.discard(line)
        heapq.heappush(self._delayed, (until, line.number, line))

    def finish(self, line: Line) -> None:
        """Forget a line in flight: its output is final."""
        self.in_flight.discard(line)
        self.body_bytes -= len(line.body)

    def carry(self, now: float) -> dict[int, CarriedLine]:
        """What the next slice has to know of these lines, by number, of at most ``MAX_CARRIED_LINES`` lines.

        Requests in flight are lost with the slice, so their current try does not count.
        """
        lines = self._carried | {line.number: (line.tries, 0.0) for line in self._ready if line.tries}
        lines |= {line.number: (line.tries, 0.0) for line in self.in_flight if line.tries}
        lines |= {line.number: (line.tries, until) for until, _, line in self._delayed if line.tries or until > now}
        return {number: lines[number] for number in sorted(lines)[:MAX_CARRIED_LINES]}
