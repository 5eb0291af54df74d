"""A batch's work in the bucket, under ``work/<batch>/``.

| key                                  | holds                                                            |
| ------------------------------------ | ---------------------------------------------------------------- |
| ``plan.json``                        | one task for each chunk: what the Distributed Map reads          |
| ``parts/<chunk>/<first>-<last>-<id>``| lines that a worker finished since its last part, in any order   |
| ``sealed/<first line>``              | a finished segment: answered lines, then failed ones; never changes. |
|                                      | Where these are long, a list of where they are in the parts; made anew |
|                                      | where somebody deleted one of these                              |

Parts are only ever added, and a segment is sealed once (S3's conditional write), so workers that crash, come
back or run twice cannot lose or change what is there. The numbers in keys are lines, counted from 0.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from nightshift.core import aws, settings
from nightshift.core.concat import ByteRange
from nightshift.core.ids import new_id
from nightshift.input.layout import Segment
from nightshift.results.lines import (
    SEAL_BYTES,
    OutputLine,
    SealSummary,
    Usage,
    decode_part,
    encode_part,
    in_seal_order,
    seal,
)

if TYPE_CHECKING:
    pass

_PARALLEL = 16


@dataclass(frozen=True, slots=True)
class _ListedLine:
    """A finished line of which only the place is in memory."""

    line: int
    answered: bool
    usage: Usage | None
    place: ByteRange

    @property
    def size(self) -> int:
        return self.place.size


def write_part(batch_id: str, chunk: int, lines: Sequence[OutputLine]) -> str:
    """Keep finished lines; returns the object's key, which says which lines are in it at most, so that readers can
    pass it over."""
    numbers = [line.line for line in lines]
    key = f"work/{batch_id}/parts/{chunk:04d}/{min(numbers):05d}-{max(numbers):05d}-{new_id('part')}"
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=key, Body=encode_part(lines))
    return key


def read_parts(batch_id: str, chunk: int, first_line: int, end_line: int) -> Iterator[list[OutputLine]]:
    """What the chunk's parts hold of the lines ``first_line`` to ``end_line`` (not included), part by part."""
    for key in _part_keys(batch_id, chunk, first_line, end_line):
        yield [line for _, line in _read_part(key) if first_line <= line.line < end_line]


def _part_keys(batch_id: str, chunk: int, first_line: int, end_line: int) -> Iterator[str]:
    prefix = f"work/{batch_id}/parts/{chunk:04d}/"
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=settings.bucket(), Prefix=prefix)
    for page in pages:
        for found in page.get("Contents", []):
            first, last, _ = found["Key"].removeprefix(prefix).split("-")
            if int(first) < end_line and int(last) >= first_line:
                yield found["Key"]


def _read_part(key: str) -> Iterator[tuple[int, OutputLine]]:
    return decode_part(aws.read_object(settings.bucket(), key))


def _listed(key: str, start: int, line: OutputLine) -> _ListedLine:
    return _ListedLine(line.line, line.answered, line.usage, ByteRange(key, start, start + line.size))


def seal_parts(
    batch_id: str,
    chunk: int,
    segment: Segment,
    answer_for: Callable[[set[int]], list[OutputLine]] | None = None,
    left_over: str | None = None,
) -> SealSummary:
    """Seal a finished segment from what the chunk's parts hold of it.

    Lines that they do not hold are asked of ``answer_for``, which gets the numbers of those that they do; ``left_over``
    is the error code that it gives them. Takes little memory however long the lines are: a segment over ``SEAL_BYTES``
    is sealed as a list of where its lines are in the parts. Otherwise as ``write_sealed``.
    """
    end = segment.first_line + segment.lines
    size = 0
    lines: list[OutputLine] = []
    listed: list[_ListedLine] = []
    for key in _part_keys(batch_id, chunk, segment.first_line, end):
        for start, line in _read_part(key):
            if segment.first_line <= line.line < end:
                listed.append(_listed(key, start, line))
                size += line.size
                lines.append(line)
        if size > SEAL_BYTES:
            lines.clear()
    done = {line.line for line in listed}
    answers = answer_for(done) if answer_for and len(done) < segment.lines else []
    code = left_over if answers else None
    if size <= SEAL_BYTES:
        return write_sealed(batch_id, segment, [*lines, *answers], code)
    if answers:
        key = write_part(batch_id, chunk, answers)
        listed += [_listed(key, start, line) for start, line in decode_part(encode_part(answers))]
    ordered, summary = in_seal_order(listed)
    summary.listed = True
    places = [(line.place.key, line.place.start, line.place.end) for line in ordered]
    return _put_seal(batch_id, segment, msgspec.json.encode(places), summary, code)


def write_sealed(
    batch_id: str, segment: Segment, lines: Iterable[OutputLine], left_over: str | None = None
) -> SealSummary:
    """Seal a finished segment and return what is sealed: another's seal, where one was first.

    ``left_over`` is the error code of the ``lines`` that nobody answered, if any.

    Raises:
        ValueError: a line is missing.
    """
    content, summary = seal(lines)
    return _put_seal(batch_id, segment, content, summary, left_over)


def _put_seal(
    batch_id: str, segment: Segment, content: bytes, summary: SealSummary, left_over: str | None
) -> SealSummary:
    summary.left_over = left_over
    if summary.completed + summary.failed != segment.lines:
        raise ValueError(f"{summary.completed + summary.failed} lines for a segment of {segment.lines}")
    try:
        aws.client("s3").put_object(
            Bucket=settings.bucket(),
            Key=_sealed_key(batch_id, segment),
            Body=content,
            Metadata={"summary": msgspec.json.encode(summary).decode()},
            IfNoneMatch="*",
        )
    except Exception as error:
        if aws.error_code(error) not in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise
        first = sealed(batch_id, segment)
        if first is None:
            raise
        return first
    return summary


def sealed(batch_id: str, segment: Segment) -> SealSummary | None:
    """What is sealed of the segment; None where it is not sealed yet."""
    try:
        found = aws.client("s3").head_object(Bucket=settings.bucket(), Key=_sealed_key(batch_id, segment))
    except Exception as error:
        if aws.error_code(error) in ("404", "NoSuchKey"):
            return None
        raise
    return msgspec.json.decode(found["Metadata"]["summary"], type=SealSummary)


def all_sealed(batch_id: str, segments: Sequence[Segment]) -> list[SealSummary | None]:
    """``sealed`` for each of ``segments``, many at once."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return list(pool.map(lambda segment: sealed(batch_id, segment), segments))


class LostPartError(Exception):
    """A part that a seal lists is not there any more."""


def unseal(batch_id: str, segment: Segment) -> None:
    """Forget a seal that lists what is lost."""
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=_sealed_key(batch_id, segment))


def slices(batch_id: str, segment: Segment, summary: SealSummary) -> tuple[list[ByteRange], list[ByteRange]]:
    """Where the bytes of a sealed segment are: those for the output file, then those for the error file.

    Raises:
        LostPartError: they are in a part that is gone.
    """
    key = _sealed_key(batch_id, segment)
    if summary.listed:
        content = aws.read_object(settings.bucket(), key)
        places = [ByteRange(*place) for place in msgspec.json.decode(content, type=list[tuple[str, int, int]])]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            if not all(pool.map(_is_there, {place.key for place in places})):
                raise LostPartError
        return places[: summary.completed], places[summary.completed :]
    end = summary.answered_bytes + summary.failed_bytes
    return [ByteRange(key, 0, summary.answered_bytes)], [ByteRange(key, summary.answered_bytes, end)]


def _is_there(key: str) -> bool:
    try:
        aws.client("s3").head_object(Bucket=settings.bucket(), Key=key)
    except Exception as error:
        if aws.error_code(error) in ("404", "NoSuchKey"):
            return False
        raise
    return True


def _sealed_key(batch_id: str, segment: Segment) -> str:
    return f"work/{batch_id}/sealed/{segment.first_line:05d}"
