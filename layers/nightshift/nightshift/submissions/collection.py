"""The answers that are collected from a provider's batch files, in any order, until they are stored.

They are handed out segment by segment: a whole one is sealed as it is, and a result part covers one of the others, so
that sealing it later reads few parts. Nothing here stores or reads a clock.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.seals import SEAL_BYTES, SealSummary


class Collection:
    """The finished lines of a chunk: ``completed`` and ``failed`` count them all, ``held_bytes`` is what is in memory.

    Example:
        collection = Collection(segments, seals)
        collection.restore(stored_lines)
        collection.add(line)
        for segment, lines in collection.take_whole():
            ...  # seal it
        for lines in collection.take():
            ...  # write a result part
    """

    def __init__(self, segments: Sequence[Segment], seals: Sequence[SealSummary | None]) -> None:
        self.open = [segment for segment, seal in zip(segments, seals, strict=True) if seal is None]
        self._first_lines = [segment.first_line for segment in self.open]
        self._finished: list[set[int]] = [set() for _ in self.open]
        self._held: list[list[OutputLine]] = [[] for _ in self.open]
        self._taken_whole: set[int] = set()
        self.held_bytes = 0
        self.completed = sum(seal.completed for seal in seals if seal)
        self.failed = sum(seal.failed for seal in seals if seal)

    def restore(self, lines: Iterable[OutputLine]) -> None:
        """Count lines that are stored in result parts."""
        for line in lines:
            self._finish(line)

    def add(self, line: OutputLine) -> bool:
        """Keep a line to be stored. Returns False, and changes nothing, if it is finished or of no open segment."""
        index = self._finish(line)
        if index is None:
            return False
        self._held[index].append(line)
        self.held_bytes += line.size
        return True

    def take_whole(self) -> Iterator[tuple[Segment, list[OutputLine]]]:
        """The segments all of whose lines are in memory, with these, in the order of the input."""
        for index, (segment, lines) in enumerate(zip(self.open, self._held, strict=True)):
            size = sum(line.size for line in lines)
            if len(lines) == segment.lines and size <= SEAL_BYTES:
                self._held[index] = []
                self.held_bytes -= size
                self._taken_whole.add(index)
                yield segment, sorted(lines, key=lambda line: line.number)

    def take(self) -> Iterator[list[OutputLine]]:
        """The lines to store, as one list for each segment, in the order of the input."""
        held, self._held = self._held, [[] for _ in self.open]
        self.held_bytes = 0
        for lines in held:
            if lines:
                yield sorted(lines, key=lambda line: line.number)

    def unfinished(self) -> Iterator[int]:
        """The numbers of the lines that are not finished, in order."""
        for segment, finished in zip(self.open, self._finished, strict=True):
            if len(finished) < segment.lines:
                yield from (number for number in segment.line_numbers if number not in finished)

    def complete(self) -> list[Segment]:
        """The open segments all of whose lines are in result parts."""
        pairs = enumerate(zip(self.open, self._finished, strict=True))
        return [
            segment
            for index, (segment, finished) in pairs
            if len(finished) == segment.lines and index not in self._taken_whole
        ]

    def _finish(self, line: OutputLine) -> int | None:
        """The index of the line's segment; None if the line is of no open segment, or was finished before."""
        index = bisect_right(self._first_lines, line.number) - 1
        if index < 0 or line.number >= self.open[index].end_line or line.number in self._finished[index]:
            return None
        self._finished[index].add(line.number)
        if line.answered:
            self.completed += 1
        else:
            self.failed += 1
        return index
