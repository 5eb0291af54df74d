"""The finished lines of a chunk: which lines they are, which are in memory, and which must still be stored.

A finished line is stored in a result part, or with its whole segment in a seal. Lines stay in memory until their
segment is complete, so that sealing need not read them back. When they take too much memory, those that are in result
parts are dropped, and their segments are sealed from result parts. Nothing here stores, waits or reads a clock.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Set

from msgspec import Struct, field

from nightshift.chunks.run_limits import RunLimits
from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.seals import SealSummary
from nightshift.results.usage import Usage


class OpenSegment(Struct, eq=False):
    """A segment that is not sealed: the numbers of its finished lines, and those of the lines that are in memory."""

    segment: Segment
    finished: set[int] = field(default_factory=set)
    held: list[OutputLine] = field(default_factory=list)
    held_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether every line of the segment is finished."""
        return len(self.finished) == self.segment.lines

    @property
    def spilled(self) -> bool:
        """Whether some finished lines are only in result parts."""
        return len(self.held) < len(self.finished)


class Unstored(Struct, frozen=True):
    """What one round of storing writes, in the order of the fields, and the totals that are true after it.

    ``lines`` are the finished lines that no earlier round has stored, with ``size`` bytes, and ``complete`` the
    segments that they have completed.
    """

    seals: Sequence[tuple[Segment, list[OutputLine]]]  # to seal with lines from memory
    parts: Sequence[list[OutputLine]]  # to write as result parts
    seals_from_parts: Sequence[Segment]  # to seal from result parts, with those above
    lines: Sequence[OutputLine]
    complete: Sequence[OpenSegment]
    size: int
    completed: int
    failed: int


class Ledger:
    """The finished lines of one run. ``completed`` and ``failed`` count every finished line of the chunk.

    ``held_bytes`` is the size of the finished lines in memory. ``usage`` sums the tokens of every finished line, and
    ``batch_usage`` those of the lines that a provider's batch API has answered.

    Example:
        ledger.record(line)
        unstored = ledger.take_unstored()
        ...  # write it
        ledger.stored(unstored)  # or, if that failed: ledger.put_back(unstored)
    """

    def __init__(self, limits: RunLimits) -> None:
        self._limits = limits
        self._segments: list[OpenSegment] = []
        self._first_lines: list[int] = []
        self._open: dict[Segment, OpenSegment] = {}
        self._complete: list[OpenSegment] = []
        self._unstored: list[OutputLine] = []
        self._unstored_bytes = 0
        self.held_bytes = 0
        self.completed = 0
        self.failed = 0
        self.usage = Usage()
        self.batch_usage = Usage()

    # --- what earlier runs stored ----------------------------------------------------------------------------

    def restore_seals(self, segments: Sequence[Segment], seals: Sequence[SealSummary | None]) -> list[Segment]:
        """Count the lines of sealed segments, and open the others. Returns those, in the order of the input."""
        for seal in seals:
            if seal is not None:
                self.completed += seal.completed
                self.failed += seal.failed
                self.usage.add(seal.usage)
                self.batch_usage.add(seal.batch_usage)
        unsealed = [segment for segment, seal in zip(segments, seals, strict=True) if seal is None]
        self._segments = [OpenSegment(segment) for segment in unsealed]
        self._first_lines = [segment.first_line for segment in unsealed]
        self._open = dict(zip(unsealed, self._segments, strict=True))
        return unsealed

    def restore_part(self, lines: Iterable[OutputLine]) -> None:
        """Count the lines of a result part. Of several lines with the same number the first one counts."""
        for line in lines:
            segment = self._segment_of(line.number)
            if segment is not None and line.number not in segment.finished:
                self._hold(segment, line)
        if self.held_bytes > self._limits.held_bytes:
            self._spill()

    def incomplete(self) -> list[Segment]:
        """The open segments that have unfinished lines, in the order of the input."""
        return [each.segment for each in self._segments if not each.complete]

    # --- what this run finishes ------------------------------------------------------------------------------

    def is_finished(self, number: int) -> bool:
        """Whether the line of an open segment is finished."""
        segment = self._segment_of(number)
        return segment is not None and number in segment.finished

    def record(self, line: OutputLine) -> bool:
        """Count a finished line. Returns False, and changes nothing, if the line was finished before."""
        segment = self._segment_of(line.number)
        if segment is None or line.number in segment.finished:
            return False
        self._hold(segment, line)
        self._unstored.append(line)
        self._unstored_bytes += line.size
        return True

    @property
    def store_is_due(self) -> bool:
        """Whether a segment is complete, or the lines that are not stored fill a result part."""
        return bool(self._complete) or self._unstored_bytes >= self._limits.part_bytes

    # --- storing ---------------------------------------------------------------------------------------------

    def take_unstored(self, whole: bool = True) -> Unstored:
        """What to store now. Call ``stored`` with it when its seals and its parts are written.

        All that is finished, or without ``whole`` only complete segments, as long as the other lines fill no part.
        """
        complete, self._complete = self._complete, []
        lines, later = self._unstored, list[OutputLine]()
        if not whole:
            closing = {number for each in complete for number in each.finished}
            later = [line for line in lines if line.number not in closing]
            if sum(line.size for line in later) >= self._limits.part_bytes:
                later = []
            else:
                lines = [line for line in lines if line.number in closing]
        self._unstored, self._unstored_bytes = later, sum(line.size for line in later)
        answered = sum(line.answered for line in later)
        direct = [each for each in complete if not each.spilled and each.held_bytes <= self._limits.seal_bytes]
        sealed = {number for each in direct for number in each.finished}
        return Unstored(
            seals=[(each.segment, each.held) for each in direct],
            parts=list(_parts([line for line in lines if line.number not in sealed], self._limits.part_bytes)),
            seals_from_parts=[each.segment for each in complete if each not in direct],
            lines=lines,
            complete=complete,
            size=sum(line.size for line in lines),
            completed=self.completed - answered,
            failed=self.failed - (len(later) - answered),
        )

    def stored(self, unstored: Unstored) -> None:
        """Drop the lines of ``unstored`` from memory, but for those whose segment is not complete."""
        for segment in (*(segment for segment, _ in unstored.seals), *unstored.seals_from_parts):
            closed = self._open.pop(segment)
            self._drop(closed, closed.finished)
        if self.held_bytes > self._limits.held_bytes:
            self._spill()

    def put_back(self, unstored: Unstored) -> None:
        """Keep what could not be stored for the next round. What was written all the same is the same then."""
        self._complete = [*unstored.complete, *self._complete]
        self._unstored = [*unstored.lines, *self._unstored]
        self._unstored_bytes += unstored.size

    def _segment_of(self, number: int) -> OpenSegment | None:
        index = bisect_right(self._first_lines, number) - 1
        if index < 0:
            return None
        found = self._segments[index]
        return found if number < found.segment.end_line else None

    def _hold(self, segment: OpenSegment, line: OutputLine) -> None:
        segment.finished.add(line.number)
        segment.held.append(line)
        segment.held_bytes += line.size
        self.held_bytes += line.size
        if line.answered:
            self.completed += 1
        else:
            self.failed += 1
        if line.usage is not None:
            self.usage.add(line.usage)
            if line.by_batch:
                self.batch_usage.add(line.usage)
        if segment.complete:
            self._complete.append(segment)

    def _spill(self) -> None:
        """Drop the lines that are in result parts from memory."""
        unstored = {line.number for line in self._unstored}
        for segment in self._open.values():
            self._drop(segment, segment.finished - unstored)

    def _drop(self, segment: OpenSegment, numbers: Set[int]) -> None:
        segment.held = [line for line in segment.held if line.number not in numbers]
        held_bytes = sum(line.size for line in segment.held)
        self.held_bytes += held_bytes - segment.held_bytes
        segment.held_bytes = held_bytes


def _parts(lines: Sequence[OutputLine], part_bytes: int) -> Iterator[list[OutputLine]]:
    """``lines`` in result parts, each of which ends with the line that reaches ``part_bytes``."""
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
