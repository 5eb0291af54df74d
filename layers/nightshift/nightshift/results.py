"""A batch's work in the bucket, under ``work/<batch>/``.

| key                                  | holds                                                            |
| ------------------------------------ | ---------------------------------------------------------------- |
| ``plan.json``                        | one task for each chunk: what the Distributed Map reads          |
| ``parts/<chunk>/<first>-<last>-<id>``| lines that a worker finished since its last part, in any order   |
| ``sealed/<first line>``              | a finished segment: answered lines, then failed ones; never changes |

Parts are only ever added, and a segment is sealed once (S3's conditional write), so workers that crash, come
back or run twice cannot lose or change what is there. The numbers in keys are lines, counted from 0.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from nightshift import aws, settings
from nightshift.ids import new_id
from nightshift.joining import MIN_PART_BYTES, Slice, parts
from nightshift.outputs import OutputLine, SealSummary, decode_part, encode_part, seal
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
        found = s3.get_object(Bucket=settings.bucket(), Key=plan_key(batch_id))
    except s3.exceptions.NoSuchKey:
        return None
    return msgspec.json.decode(found["Body"].read(), type=list[Task])


def plan_key(batch_id: str) -> str:
    return f"work/{batch_id}/plan.json"


def write_part(batch_id: str, chunk: int, lines: list[OutputLine]) -> None:
    """Keep finished lines. The key says which lines are in it at most, so that readers can pass it over."""
    numbers = [line.line for line in lines]
    aws.client("s3").put_object(
        Bucket=settings.bucket(),
        Key=f"work/{batch_id}/parts/{chunk:04d}/{min(numbers):05d}-{max(numbers):05d}-{new_id('part')}",
        Body=encode_part(lines),
    )


def read_parts(batch_id: str, chunk: int, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
    """What the chunk's parts hold of the lines ``first_line`` to ``end_line`` (not included), part by part."""
    prefix = f"work/{batch_id}/parts/{chunk:04d}/"
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=settings.bucket(), Prefix=prefix)
    for page in pages:
        for found in page.get("Contents", []):
            first, last, _ = found["Key"].removeprefix(prefix).split("-")
            if int(first) < end_line and int(last) >= first_line:
                part = aws.client("s3").get_object(Bucket=settings.bucket(), Key=found["Key"])["Body"].read()
                yield [line for line in decode_part(part) if first_line <= line.line < end_line]


def write_sealed(batch_id: str, segment: Segment, lines: list[OutputLine], left_over: str | None = None) -> SealSummary:
    """Seal a finished segment and return what is sealed: another's seal, where one was first.

    ``left_over`` is the error code of the ``lines`` that nobody answered, if any.

    Raises:
        ValueError: a line is missing.
    """
    content, summary = seal(lines)
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


def answered_slice(batch_id: str, segment: Segment, summary: SealSummary) -> Slice:
    return Slice(_sealed_key(batch_id, segment), 0, summary.answered_bytes)


def failed_slice(batch_id: str, segment: Segment, summary: SealSummary) -> Slice:
    return Slice(_sealed_key(batch_id, segment), summary.answered_bytes, summary.answered_bytes + summary.failed_bytes)


def join(slices: Sequence[Slice], target: str, digest: "hashlib._Hash | None" = None) -> int:
    """Write ``slices``, one after the other, as the object ``target``; returns its size in bytes.

    Big slices are copied by S3 itself, unless ``digest`` is to be fed with every byte, in order. What passes through
    memory stays below ``2 * MIN_PART_BYTES`` for each of four parts at a time. Doing it again writes the same.
    """
    s3 = aws.client("s3")
    bucket = settings.bucket()
    size = sum(piece.size for piece in slices)
    groups = parts(slices)
    if len(groups) <= 1 and size < 2 * MIN_PART_BYTES:
        content = b"".join(map(_read, chain.from_iterable(groups)))
        if digest is not None:
            digest.update(content)
        s3.put_object(Bucket=bucket, Key=target, Body=content, ContentType="application/jsonl")
        return size
    upload = s3.create_multipart_upload(Bucket=bucket, Key=target, ContentType="application/jsonl")["UploadId"]

    def fetch(group: list[Slice]) -> bytes | Slice:
        copied = digest is None and len(group) == 1 and group[0].size >= MIN_PART_BYTES
        return group[0] if copied else b"".join(map(_read, group))

    def send(number: int, part: bytes | Slice) -> str:
        whole: Any = {"Bucket": bucket, "Key": target, "UploadId": upload, "PartNumber": number}
        if isinstance(part, bytes):
            return s3.upload_part(**whole, Body=part)["ETag"]
        whole |= {"CopySource": {"Bucket": bucket, "Key": part.key}}
        copied = s3.upload_part_copy(**whole, CopySourceRange=f"bytes={part.start}-{part.end - 1}")
        return copied["CopyPartResult"]["ETag"]

    tags: list[str] = []
    try:
        with ThreadPoolExecutor(_JOINED_AT_ONCE) as pool:
            for start in range(0, len(groups), _JOINED_AT_ONCE):
                fetched = list(pool.map(fetch, groups[start : start + _JOINED_AT_ONCE]))
                for part in fetched:
                    if digest is not None and isinstance(part, bytes):
                        digest.update(part)
                tags += pool.map(send, range(start + 1, start + 1 + len(fetched)), fetched)
        s3.complete_multipart_upload(
            Bucket=bucket,
            Key=target,
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]},
        )
    except BaseException:
        s3.abort_multipart_upload(Bucket=bucket, Key=target, UploadId=upload)
        raise
    return size


def _read(piece: Slice) -> bytes:
    found = aws.client("s3").get_object(
        Bucket=settings.bucket(), Key=piece.key, Range=f"bytes={piece.start}-{piece.end - 1}"
    )
    return found["Body"].read()


def _sealed_key(batch_id: str, segment: Segment) -> str:
    return f"work/{batch_id}/sealed/{segment.first_line:05d}"
