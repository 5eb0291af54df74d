"""The file of a provider's batch: the requests as the upstream gets them, each named by its line's number."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nightshift.chunks.chunk import Chunk, ChunkStore
from nightshift.input.layout import BYTES_PER_TOKEN, Segment
from nightshift.input.request import requests
from nightshift.routes.route import BatchApi
from nightshift.submissions.lines import request_line


def write_provider_file(lines: Iterable[tuple[int, bytes]], api: BatchApi, path: Path) -> list[int]:
    """Write ``lines``, each with its number, to ``path``, in order, up to the provider's caps. Returns those written.

    At least one line is written: the provider itself refuses one that is too long. Blocks.
    """
    most_bytes = api.max_bytes
    if api.max_queued_tokens is not None:
        most_bytes = min(most_bytes, api.max_queued_tokens * BYTES_PER_TOKEN)
    written: list[int] = []
    size = 0
    with path.open("wb") as file:
        for number, line in lines:
            size += len(line)
            if written and (size > most_bytes or len(written) == api.max_requests):
                break
            file.write(line)
            written.append(number)
    return written


def provider_lines(
    chunk: Chunk, store: ChunkStore, segments: Sequence[Segment], wanted: Sequence[int], endpoint: str
) -> Iterator[tuple[int, bytes]]:
    """The numbers of the ``wanted`` lines and the lines as the provider gets them, in order.

    Raises:
        InputGoneError: the input file was deleted.
    """
    numbers = set(wanted)
    for segment in segments:
        if numbers.isdisjoint(segment.line_numbers):
            continue
        for number, request in zip(segment.line_numbers, requests(store.read(segment)), strict=True):
            if number in numbers:
                yield number, request_line(number, chunk.upstream_body(bytes(request.body)), endpoint)
