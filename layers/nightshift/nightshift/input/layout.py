"""How a file is divided: into segments, and these into chunks for the workers.

A chunk is one worker's share of the file. The worker keeps requests in flight until the chunk's last line, so a chunk
has one slow tail, however many lines it has (ADR 2). A segment is what is read, stored and sealed at a time: small
enough for memory, and large enough for S3.
"""

from collections.abc import Sequence

import msgspec

SEGMENT_LINES = 1_000
SEGMENT_BYTES = 4 * 1024 * 1024

# Requests in flight of one worker. A second worker starts only above that, because Lambda's time is the main cost.
WORKER_CONCURRENCY = 256
# A worker gets at least this many lines for each request in flight, because otherwise its tail is most of its time.
ROUNDS_PER_WORKER = 4


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Lines ``first_line`` to ``first_line + lines`` (from 0) at the bytes ``start`` to ``end`` of the input."""

    start: int
    end: int
    first_line: int
    lines: int

    @property
    def end_line(self) -> int:
        """The number of the line after the last."""
        return self.first_line + self.lines

    @property
    def line_numbers(self) -> range:
        return range(self.first_line, self.end_line)


def segments(ends: Sequence[int]) -> list[Segment]:
    """The segments of a file whose lines end at the byte offsets ``ends``, in order and without gaps."""
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


def chunks(segments: Sequence[Segment], max_concurrency: int) -> list[list[Segment]]:
    """Divide the segments among as many workers as ``max_concurrency`` and the lines keep busy, in order."""
    lines = sum(segment.lines for segment in segments)
    workers = min(
        -(-max_concurrency // WORKER_CONCURRENCY),
        max(1, lines // (WORKER_CONCURRENCY * ROUNDS_PER_WORKER)),
        len(segments),
    )
    shares: list[list[Segment]] = [[] for _ in range(workers)]
    for segment in segments:
        middle = segment.first_line + segment.lines // 2
        shares[min(workers - 1, middle * workers // lines)].append(segment)
    return [share for share in shares if share]


def chunk_concurrency(max_concurrency: int, chunk_count: int) -> int:
    """Requests in flight of each of ``chunk_count`` chunks; their sum is at most ``max_concurrency``."""
    return max(1, min(WORKER_CONCURRENCY, max_concurrency // chunk_count))
