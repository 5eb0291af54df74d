"""How a file is divided: into segments, and these into chunks for the workers.

A chunk is one worker's share of the file. The worker keeps requests in flight until the chunk's last line, so a chunk
has one slow tail, however many lines it has (ADR 2). A segment is what is read, stored and sealed at a time: small
enough for memory, and large enough for S3.
"""

from collections.abc import Sequence

import msgspec

from nightshift.routes.route import Route

SEGMENT_LINES = 1_000
SEGMENT_BYTES = 4 * 1024 * 1024
# In batch mode answers come all at once, so larger segments cost no more memory and fewer requests to S3.
BATCH_SEGMENT_LINES = 5_000

# Requests in flight of one worker. A second worker starts only above that, because Lambda's time is the main cost. Each
# is an open file, and a Lambda may have 1,024 (`upstream/sockets.py`).
WORKER_CONCURRENCY = 1_000
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


# What a provider's batch file may grow by over the input, because its lines have other names and more fields.
_GROWTH = 1.1
# Tokens are estimated from bytes: about four of English text, and fewer of JSON around it.
BYTES_PER_TOKEN = 4


class Caps(msgspec.Struct, frozen=True):
    """The most lines and bytes of a run of segments."""

    lines: int
    size: int


SEGMENT = Caps(SEGMENT_LINES, SEGMENT_BYTES)


def caps_of(route: Route) -> Caps:
    """What a chunk of a route in batch mode may hold: what one of the provider's batches may."""
    api = route.batch_api
    size = api.max_bytes / _GROWTH
    if api.max_queued_tokens is not None:
        size = min(size, api.max_queued_tokens * BYTES_PER_TOKEN)
    return Caps(api.max_requests, max(1, int(size)))


def segment_lines(route: Route) -> int:
    """The most lines of a segment of a new batch of the route."""
    return SEGMENT_LINES if route.mode == "realtime" else BATCH_SEGMENT_LINES


def segment_of(route: Route, lines: int) -> Caps:
    """What a segment of a batch of the route may hold; ``lines`` are its ``segment_lines``."""
    if route.mode == "realtime":
        return Caps(lines, SEGMENT_BYTES)
    chunk = caps_of(route)
    return Caps(min(chunk.lines, lines), min(chunk.size, SEGMENT_BYTES))


def segments(ends: Sequence[int], caps: Caps = SEGMENT) -> list[Segment]:
    """The segments of a file whose lines end at the byte offsets ``ends``, in order and without gaps.

    A segment has more bytes than ``caps`` allow only if it is a single line.
    """
    cut: list[Segment] = []
    start = first = 0
    previous_end = 0
    for line, end in enumerate(ends):
        if line > first and (line - first >= caps.lines or end - start > caps.size):
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


def capped_chunks(segments: Sequence[Segment], caps: Caps) -> list[list[Segment]]:
    """Divide the segments into as few chunks as ``caps`` allow, in order; a single segment may have more."""
    shares: list[list[Segment]] = []
    lines = size = 0
    for segment in segments:
        segment_bytes = segment.end - segment.start
        if not shares or lines + segment.lines > caps.lines or size + segment_bytes > caps.size:
            shares.append([])
            lines = size = 0
        shares[-1].append(segment)
        lines += segment.lines
        size += segment_bytes
    return shares


def chunk_concurrency(max_concurrency: int, chunk_count: int) -> int:
    """Requests in flight of each of ``chunk_count`` chunks; their sum is at most ``max_concurrency``."""
    return max(1, min(WORKER_CONCURRENCY, max_concurrency // chunk_count))
