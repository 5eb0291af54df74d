"""A batch's results in the bucket, under ``work/<batch>/``.

| key                                   | object                                                                    |
| ------------------------------------- | ------------------------------------------------------------------------- |
| ``parts/<chunk>/<first>-<last>-<id>`` | a result part: lines that a worker finished since its last part           |
| ``sealed/<first line>``               | the seal of a segment: answered lines, then failed ones. The seal of long |
|                                       | lines holds their byte ranges in the result parts instead                 |

Workers may crash, be slow, or run twice: no result is lost or changed, because result parts are only added, and a
conditional write seals each segment once. A seal by reference is written again after the deletion of a result part that
it needs. The numbers in keys are lines, counted from 0.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from nightshift.core import aws, bucket, settings
from nightshift.core.concat import ByteRange
from nightshift.core.ids import new_id
from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.parts import PlacedLine, decode_part, encode_part
from nightshift.results.seals import SEAL_BYTES, SealSummary, in_seal_order, seal

_THREADS = 16


class ResultPartGoneError(Exception):
    """A result part that a seal refers to was deleted."""


# --- result parts --------------------------------------------------------------------------------------------------


def write_result_part(batch_id: str, chunk: int, lines: Sequence[OutputLine]) -> str:
    """Store finished lines as a new result part; returns its key."""
    numbers = [line.number for line in lines]
    # The first and the last number are in the key, so that readers of other lines need not read the object.
    key = f"{_parts_prefix(batch_id, chunk)}{min(numbers):05d}-{max(numbers):05d}-{new_id('part')}"
    bucket.put(key, encode_part(lines))
    return key


def read_result_parts(batch_id: str, chunk: int, first_line: int, end_line: int) -> Iterator[list[OutputLine]]:
    """The lines ``first_line`` to ``end_line`` (not included) that the chunk's result parts hold, part by part."""
    for key in _part_keys(batch_id, chunk, first_line, end_line):
        yield [line for _, line in _read_part(key, first_line, end_line)]


def _read_part(key: str, first_line: int, end_line: int) -> Iterator[tuple[int, OutputLine]]:
    """The lines of one result part that are in the range, each with the offset of its content."""
    for offset, line in decode_part(aws.read_object(settings.bucket(), key)):
        if first_line <= line.number < end_line:
            yield offset, line


def _part_keys(batch_id: str, chunk: int, first_line: int, end_line: int) -> Iterator[str]:
    prefix = _parts_prefix(batch_id, chunk)
    for name in bucket.sizes(prefix):
        first, last, _ = name.split("-")
        if int(first) < end_line and int(last) >= first_line:
            yield prefix + name


def _parts_prefix(batch_id: str, chunk: int) -> str:
    return f"work/{batch_id}/parts/{chunk:04d}/"


# --- seals ---------------------------------------------------------------------------------------------------------


def write_seal(
    batch_id: str, segment: Segment, lines: Iterable[OutputLine], leftover_code: str | None = None
) -> SealSummary:
    """Seal a finished segment. Returns the summary of its seal, which is another one if the segment was sealed before.

    ``leftover_code`` is the error code of those ``lines`` that got no answer, if there are any.

    Raises:
        ValueError: a line is missing.
    """
    content, summary = seal(lines)
    return _put_seal(batch_id, segment, content, summary, leftover_code)


def seal_from_parts(
    batch_id: str,
    chunk: int,
    segment: Segment,
    leftover_lines: Callable[[set[int]], list[OutputLine]] | None = None,
    leftover_code: str | None = None,
) -> SealSummary:
    """Seal a segment with the lines that the chunk's result parts hold, as ``write_seal`` does.

    If lines are missing, ``leftover_lines`` makes them with the error code ``leftover_code``, from the numbers of the
    lines that are there. A segment of more than ``SEAL_BYTES`` is sealed by reference, so that it need not fit into
    memory.

    Raises:
        ValueError: a line is missing.
    """
    lines, placed = _finished_lines(batch_id, chunk, segment)
    numbers = {line.number for line in placed}
    leftovers = leftover_lines(numbers) if leftover_lines and len(numbers) < segment.lines else []
    code = leftover_code if leftovers else None
    if lines is not None:
        return write_seal(batch_id, segment, [*lines, *leftovers], code)
    if leftovers:
        placed += _write_placed(batch_id, chunk, leftovers)
    ordered, summary = in_seal_order(placed)
    summary.by_reference = True
    ranges = [(line.place.key, line.place.start, line.place.end) for line in ordered]
    return _put_seal(batch_id, segment, msgspec.json.encode(ranges), summary, code)


def _finished_lines(batch_id: str, chunk: int, segment: Segment) -> tuple[list[OutputLine] | None, list[PlacedLine]]:
    """The segment's lines in the chunk's result parts, and their places; None for lines of over ``SEAL_BYTES``."""
    lines: list[OutputLine] = []
    placed: list[PlacedLine] = []
    size = 0
    for key in _part_keys(batch_id, chunk, segment.first_line, segment.end_line):
        for offset, line in _read_part(key, segment.first_line, segment.end_line):
            lines.append(line)
            placed.append(PlacedLine.of(line, key, offset))
            size += line.size
        if size > SEAL_BYTES:
            lines.clear()
    return (lines if size <= SEAL_BYTES else None), placed


def _write_placed(batch_id: str, chunk: int, lines: Sequence[OutputLine]) -> list[PlacedLine]:
    """Store ``lines`` as a result part; returns their places in it."""
    key = write_result_part(batch_id, chunk, lines)
    return [PlacedLine.of(line, key, offset) for offset, line in decode_part(encode_part(lines))]


def _put_seal(
    batch_id: str, segment: Segment, content: bytes, summary: SealSummary, leftover_code: str | None
) -> SealSummary:
    summary.leftover_code = leftover_code
    if summary.lines != segment.lines:
        raise ValueError(f"{summary.lines} lines for a segment of {segment.lines}")
    try:
        aws.client("s3").put_object(
            Bucket=settings.bucket(),
            Key=_seal_key(batch_id, segment),
            Body=content,
            Metadata={"summary": msgspec.json.encode(summary).decode()},
            IfNoneMatch="*",
        )
    except Exception as error:
        if aws.error_code(error) not in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise
        first = read_seal(batch_id, segment)
        if first is None:
            raise
        return first
    return summary


def read_seal(batch_id: str, segment: Segment) -> SealSummary | None:
    """The summary of the segment's seal; None for an open segment."""
    found = bucket.head(_seal_key(batch_id, segment))
    return None if found is None else msgspec.json.decode(found["Metadata"]["summary"], type=SealSummary)


def read_seals(batch_id: str, segments: Sequence[Segment]) -> list[SealSummary | None]:
    """``read_seal`` for each of ``segments``, many at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda segment: read_seal(batch_id, segment), segments))


def delete_seal(batch_id: str, segment: Segment) -> None:
    """Open a segment again whose seal refers to a result part that is gone."""
    bucket.delete(_seal_key(batch_id, segment))


def byte_ranges(
    batch_id: str, segment: Segment, summary: SealSummary
) -> tuple[Sequence[ByteRange], Sequence[ByteRange]]:
    """Where the bytes of a sealed segment are: those for the output file, then those for the error file.

    Raises:
        ResultPartGoneError: a result part that the seal refers to was deleted.
    """
    key = _seal_key(batch_id, segment)
    if summary.by_reference:
        ranges = _referenced_ranges(key)
        return ranges[: summary.completed], ranges[summary.completed :]
    end = summary.answered_bytes + summary.failed_bytes
    return [ByteRange(key, 0, summary.answered_bytes)], [ByteRange(key, summary.answered_bytes, end)]


def _referenced_ranges(seal_key: str) -> list[ByteRange]:
    """The byte ranges that a seal by reference holds, one for each line."""
    content = aws.read_object(settings.bucket(), seal_key)
    ranges = [ByteRange(*place) for place in msgspec.json.decode(content, type=list[tuple[str, int, int]])]
    with ThreadPoolExecutor(_THREADS) as pool:
        if not all(pool.map(bucket.head, {place.key for place in ranges})):
            raise ResultPartGoneError
    return ranges


def _seal_key(batch_id: str, segment: Segment) -> str:
    return f"work/{batch_id}/sealed/{segment.first_line:05d}"
