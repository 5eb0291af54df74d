"""How a file is shared out: chunks for workers, and within them segments for bookkeeping.

A chunk is one worker's share of the file, a run of whole lines. A worker streams through its chunk and keeps it
full until the chunk's last line, so a chunk costs one slow tail however many lines it has (ADR 2). Within a
chunk, a segment is the unit that is read, kept and sealed: small enough for memory, big enough for S3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SEGMENT_LINES = 1_000
SEGMENT_BYTES = 4 * 1024 * 1024

# One worker holds this many requests in flight before a second one is started: Lambda time is the bill.
WORKER_CONCURRENCY = 256
# A worker should have at least this many rounds of requests, or its tail is most of its time.
ROUNDS_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """Lines ``first_line`` to ``first_line + lines`` (from 0) at bytes ``start`` to ``end`` of the input."""

    start: int
    end: int
    first_line: int
    lines: int

    @property
    def end_line(self) -> int:
        """The number of the line after its last."""
        return self.first_line + self.lines

    @property
    def line_numbers(self) -> range:
        return range(self.first_line, self.end_line)


def segments(ends: Sequence[int]) -> list[Segment]:
    """Cut a file whose lines end at the byte offsets ``ends`` into segments, in order and without gaps."""
    cut: list[Segment] = []
    start = first = 0
    previous_end = 0
    for line, end in enumerate(ends):
        if line > first and (line - first >= SEGMENT_LINES or end - start > SEGMENT_BYTES):
            cut.append(Segment(start, previous_end, first, line - first))
            start, first = previous_end, line
        previous_end = end
    if len(ends) > first:
        cut.append(Segment(start, previous_end, first, len(ends) - first))
    return cut


def chunks(parts: Sequence[Segment], max_concurrency: int) -> list[list[Segment]]:
    """Share segments out to as many workers as ``max_concurrency`` and the work can fill, in order."""
    lines = sum(part.lines for part in parts)
    workers = min(
        -(-max_concurrency // WORKER_CONCURRENCY),
        max(1, lines // (WORKER_CONCURRENCY * ROUNDS_PER_WORKER)),
        len(parts),
    )
    shares: list[list[Segment]] = [[] for _ in range(workers)]
    for part in parts:
        middle = part.first_line + part.lines // 2
        shares[min(workers - 1, middle * workers // lines)].append(part)
    return [share for share in shares if share]


def chunk_concurrency(max_concurrency: int, chunk_count: int) -> int:
    """Requests in flight for each of ``chunk_count`` chunks; their sum never passes ``max_concurrency``."""
    return max(1, min(WORKER_CONCURRENCY, max_concurrency // chunk_count))
