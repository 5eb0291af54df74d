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
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import msgspec

from nightshift import aws, settings
from nightshift.ids import new_id
from nightshift.joining import MIN_PART_BYTES, Slice, parts
from nightshift.outputs import (
    SEAL_BYTES,
    OutputLine,
    SealSummary,
    Usage,
    decode_part,
    encode_part,
    in_seal_order,
    seal,
)
from nightshift.plan import Segment

if TYPE_CHECKING:
    import hashlib

_PARALLEL = 16
_JOINED_AT_ONCE = 4


class Task(msgspec.Struct, frozen=True):
    """What a worker is asked to do: one chunk of one batch. ``slice`` is what its last invocation said."""

    account_id: str
    batch_id: str
    chunk: int
    segments: list[tuple[int, int, int, int]]
    slice: dict[str, Any] = {}

    def spans(self) -> list[Segment]:
        return [Segment(*span) for span in self.segments]


def write_plan(batch_id: str, tasks: Sequence[Task]) -> None:
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=plan_key(batch_id), Body=msgspec.json.encode(tasks))


def read_plan(batch_id: str) -> list[Task] | None:
    """The batch's tasks; None where there is no plan, never written or deleted from the bucket."""
    s3 = aws.client("s3")
    try:
        content = aws.read_object(settings.bucket(), plan_key(batch_id))
    except s3.exceptions.NoSuchKey:
        return None
    return msgspec.json.decode(content, type=list[Task])


def plan_key(batch_id: str) -> str:
    return f"work/{batch_id}/plan.json"


@dataclass(frozen=True, slots=True)
class _ListedLine:
    """A finished line of which only the place is in memory."""

    line: int
    answered: bool
    usage: Usage | None
    place: Slice

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
    return _ListedLine(line.line, line.answered, line.usage, Slice(key, start, start + line.size))


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


def slices(batch_id: str, segment: Segment, summary: SealSummary) -> tuple[list[Slice], list[Slice]]:
    """Where the bytes of a sealed segment are: those for the output file, then those for the error file.

    Raises:
        LostPartError: they are in a part that is gone.
    """
    key = _sealed_key(batch_id, segment)
    if summary.listed:
        content = aws.read_object(settings.bucket(), key)
        places = [Slice(*place) for place in msgspec.json.decode(content, type=list[tuple[str, int, int]])]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            if not all(pool.map(_is_there, {place.key for place in places})):
                raise LostPartError
        return places[: summary.completed], places[summary.completed :]
    end = summary.answered_bytes + summary.failed_bytes
    return [Slice(key, 0, summary.answered_bytes)], [Slice(key, summary.answered_bytes, end)]


def join(pieces: Sequence[Slice], target: str, digest: "hashlib._Hash | None" = None, *, resume: bool = False) -> int:
    """Write ``pieces``, one after the other, as the object ``target``; returns its size in bytes.

    Big ones are copied by S3 itself, unless ``digest`` is to be fed with every byte, in order. What passes through
    memory stays below ``2 * MIN_PART_BYTES`` for each of four parts at a time, up to 50 GB in all. Doing it again
    writes the same; with ``resume``, what a try that was killed had uploaded is kept. That is for who always joins the
    same pieces, and has no ``digest``.
    """
    s3 = aws.client("s3")
    bucket = settings.bucket()
    size = sum(piece.size for piece in pieces)
    groups = parts(pieces)
    if len(groups) <= 1 and size < 2 * MIN_PART_BYTES:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            content = b"".join(pool.map(_read, chain.from_iterable(groups)))
        if digest is not None:
            digest.update(content)
        s3.put_object(Bucket=bucket, Key=target, Body=content, ContentType="application/jsonl")
        return size
    upload = _begun(target) if resume else None
    if upload is None:
        upload = s3.create_multipart_upload(Bucket=bucket, Key=target, ContentType="application/jsonl")["UploadId"]
    tags = _uploaded(target, upload, groups) if resume else {}

    def fetch(pool: ThreadPoolExecutor, some: list[list[Slice]]) -> list[bytes | Slice]:
        """Of each group its bytes; a group that S3 can copy is left as it is."""
        copied = [digest is None and len(group) == 1 and group[0].size >= MIN_PART_BYTES for group in some]
        read = pool.map(_read, chain.from_iterable(g for g, by_s3 in zip(some, copied, strict=True) if not by_s3))
        return [
            group[0] if by_s3 else b"".join(islice(read, len(group))) for group, by_s3 in zip(some, copied, strict=True)
        ]

    def send(number: int, part: bytes | Slice) -> str:
        whole: Any = {"Bucket": bucket, "Key": target, "UploadId": upload, "PartNumber": number}
        if isinstance(part, bytes):
            return s3.upload_part(**whole, Body=part)["ETag"]
        whole |= {"CopySource": {"Bucket": bucket, "Key": part.key}}
        copied = s3.upload_part_copy(**whole, CopySourceRange=f"bytes={part.start}-{part.end - 1}")
        return copied["CopyPartResult"]["ETag"]

    with ThreadPoolExecutor(_PARALLEL) as pool:
        for start in range(len(tags), len(groups), _JOINED_AT_ONCE):
            fetched = fetch(pool, groups[start : start + _JOINED_AT_ONCE])
            for part in fetched:
                if digest is not None and isinstance(part, bytes):
                    digest.update(part)
            numbers = range(start + 1, start + 1 + len(fetched))
            tags.update(zip(numbers, pool.map(send, numbers, fetched), strict=True))
            del fetched, part  # before the next are fetched
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key=target,
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in tags.items()]},
    )
    return size


def _begun(target: str) -> str | None:
    """The id of an upload to ``target`` that was begun and not ended; the bucket forgets those of yesterday."""
    found = aws.client("s3").list_multipart_uploads(Bucket=settings.bucket(), Prefix=target)
    return next((upload["UploadId"] for upload in found.get("Uploads", []) if upload["Key"] == target), None)


def _uploaded(target: str, upload: str, groups: Sequence[list[Slice]]) -> dict[int, str]:
    """The ETags, by number from 1, of the first parts that are uploaded already.

    Pieces never change, so a part is what it was if it, and each before it, is as long as it is to be.
    """
    pages = aws.client("s3").get_paginator("list_parts")
    sizes = {number: sum(piece.size for piece in group) for number, group in enumerate(groups, 1)}
    tags: dict[int, str] = {}
    for page in pages.paginate(Bucket=settings.bucket(), Key=target, UploadId=upload):
        for part in page.get("Parts", []):
            number = part["PartNumber"]
            if number != len(tags) + 1 or part["Size"] != sizes.get(number):
                return tags
            tags[number] = part["ETag"]
    return tags


def _read(piece: Slice) -> bytes:
    return aws.read_object(settings.bucket(), piece.key, piece.start, piece.end)


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
