"""The finished lines of a chunk: which there are, which are in memory, and which must still be stored."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from nightshift.engine.run_limits import RunLimits
from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.seals import SealSummary


class OpenSegment:
    """A segment that is not sealed: the numbers of its finished lines, and those of the lines held in memory.

    ``spilled`` says that result parts hold finished lines which memory no longer does.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.done: set[int] = set()
        self.held: list[OutputLine] = []
        self.held_bytes = 0
        self.spilled = False

    @property
    def whole(self) -> bool:
        """Whether every line of the segment is finished."""
        return len(self.done) == self.segment.lines


@dataclass(frozen=True, slots=True)
class StoreWork:
    """What one round of storing writes, in this order, and the totals that it makes true."""

    from_memory: Sequence[OpenSegment]  # segments to seal with the lines they hold
    parts: Sequence[Sequence[OutputLine]]  # lines for result parts, one sequence for each part
    from_parts: Sequence[OpenSegment]  # segments to seal from result parts
    size: int  # bytes of the lines that are stored
    completed: int
    failed: int


class Ledger:
    """The books of one run. ``completed`` and ``failed`` count every finished line of the chunk, sealed ones too."""

    def __init__(self, limits: RunLimits) -> None:
        self._limits = limits
        self._segments: list[OpenSegment] = []
        self._first_lines: list[int] = []
        self._open: set[OpenSegment] = set()
        self._whole: list[OpenSegment] = []
        self._unstored: list[OutputLine] = []
        self._unstored_bytes = 0
        self._held_bytes = 0
        self.completed = 0
        self.failed = 0

    # --- what earlier runs stored ----------------------------------------------------------------------------

    def restore_seal(self, seal: SealSummary) -> None:
        """Count a segment that is sealed already."""
        self.completed += seal.completed
        self.failed += seal.failed

    def open(self, segments: Iterable[Segment]) -> None:
        """Start the books of segments that are not sealed, in the order of the input."""
        self._segments = [OpenSegment(segment) for segment in segments]
        self._first_lines = [each.segment.first_line for each in self._segments]
        self._open = set(self._segments)

    def restore_part(self, lines: Iterable[OutputLine]) -> None:
        """Take the finished lines of a result part. Of several with one number the first counts."""
        for line in lines:
            segment = self._segment_of(line.number)
            if segment is not None and line.number not in segment.done:
                self._count(segment, line)
        if self._held_bytes > self._limits.held_bytes:
            self._spill()

    def unfinished(self) -> list[OpenSegment]:
        """The open segments with lines to send. Those without are sealed by the next round of storing."""
        self._whole = [segment for segment in self._segments if segment.whole]
        return [segment for segment in self._segments if not segment.whole]

    # --- what this run finishes ------------------------------------------------------------------------------

    def record(self, line: OutputLine) -> bool:
        """Take a finished line; False where the line is known already."""
        segment = self._segment_of(line.number)
        if segment is None or line.number in segment.done:
            return False
        self._count(segment, line)
        self._unstored.append(line)
        self._unstored_bytes += line.size
        if segment.whole:
            self._whole.append(segment)
        return True

    @property
    def store_is_due(self) -> bool:
        """Whether a segment is whole, or a result part is full."""
        return bool(self._whole) or self._unstored_bytes >= self._limits.part_bytes

    # --- storing ---------------------------------------------------------------------------------------------

    def take(self) -> StoreWork:
        """Hand out what is to be stored now; ``stored`` takes the receipt."""
        whole, self._whole = self._whole, []
        unstored, self._unstored, self._unstored_bytes = self._unstored, [], 0
        from_memory = [each for each in whole if not each.spilled and each.held_bytes <= self._limits.seal_bytes]
        sealed = {number for segment in from_memory for number in segment.done}
        return StoreWork(
            from_memory=from_memory,
            parts=list(_parts([line for line in unstored if line.number not in sealed], self._limits.part_bytes)),
            from_parts=[segment for segment in whole if segment not in from_memory],
            size=sum(line.size for line in unstored),
            completed=self.completed,
            failed=self.failed,
        )

    def stored(self, work: StoreWork) -> None:
        """Forget the lines of ``work`` that are no longer needed in memory."""
        for segment in (*work.from_memory, *work.from_parts):
            self._open.discard(segment)
            self._forget(segment, segment.done)
        if self._held_bytes > self._limits.held_bytes:
            self._spill()

    def _segment_of(self, number: int) -> OpenSegment | None:
        index = bisect_right(self._first_lines, number) - 1
        if index < 0:
            return None
        found = self._segments[index]
        return found if number < found.segment.first_line + found.segment.lines else None

    def _count(self, segment: OpenSegment, line: OutputLine) -> None:
        segment.done.add(line.number)
        segment.held.append(line)
        segment.held_bytes += line.size
        self._held_bytes += line.size
        if line.answered:
            self.completed += 1
        else:
            self.failed += 1

    def _spill(self) -> None:
        """Forget finished lines that result parts hold; sealing reads them back."""
        unstored = {line.number for line in self._unstored}
        for segment in self._open:
            self._forget(segment, segment.done - unstored)
            segment.spilled = True

    def _forget(self, segment: OpenSegment, numbers: Set[int]) -> None:
        segment.held = [line for line in segment.held if line.number not in numbers]
        held_bytes = sum(line.size for line in segment.held)
        self._held_bytes += held_bytes - segment.held_bytes
        segment.held_bytes = held_bytes


def _parts(lines: Sequence[OutputLine], part_bytes: int) -> Iterator[list[OutputLine]]:
    """``lines`` in result parts that end with the line that makes them ``part_bytes`` long."""
    part: list[OutputLine] = []
    size = 0
    for line in lines:
        part.append(line)
        size += line.size
        if size >= part_bytes:
            yield part
            part, size = [], 0
    if part:
        yield part
