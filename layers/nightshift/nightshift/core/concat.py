"""How sealed segments become one file by S3 multipart upload: which bytes are copied by S3, which pass through us."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from nightshift.core import aws, settings

if TYPE_CHECKING:
    import hashlib

# S3: every part but the last is 5 MiB to 5 GiB, and there are at most 10,000.
MIN_PART_BYTES = 5 * 1024 * 1024
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start`` to ``end`` of the object ``key``."""

    key: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def parts(slices: Sequence[ByteRange]) -> list[list[ByteRange]]:
    """Group ``slices`` into at most ``MAX_PARTS`` parts, in order.

    Every part but the last has at least ``MIN_PART_BYTES``, or more where there would be too many of them. A part of
    one slice of so many bytes can be copied by S3 itself; any other is less than twice that and passes through memory.
    """
    grouped: list[list[ByteRange]] = []
    small: list[ByteRange] = []
    gathered = 0
    least = max(MIN_PART_BYTES, -(-sum(piece.size for piece in slices) // (MAX_PARTS - 1)))
    for piece in slices:
        missing = least - gathered
        if small and piece.size >= missing + least:
            # Fill up with the head of a big slice, so that its rest can be copied.
            grouped.append([*small, ByteRange(piece.key, piece.start, piece.start + missing)])
            small, gathered = [], 0
            piece = ByteRange(piece.key, piece.start + missing, piece.end)
        if piece.size:
            small.append(piece)
            gathered += piece.size
        if gathered >= least:
            grouped.append(small)
            small, gathered = [], 0
    if small:
        grouped.append(small)
    return grouped


_PARALLEL = 16
_JOINED_AT_ONCE = 4


def join(
    pieces: Sequence[ByteRange], target: str, digest: "hashlib._Hash | None" = None, *, resume: bool = False
) -> int:
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

    def fetch(pool: ThreadPoolExecutor, some: list[list[ByteRange]]) -> list[bytes | ByteRange]:
        """Of each group its bytes; a group that S3 can copy is left as it is."""
        copied = [digest is None and len(group) == 1 and group[0].size >= MIN_PART_BYTES for group in some]
        read = pool.map(_read, chain.from_iterable(g for g, by_s3 in zip(some, copied, strict=True) if not by_s3))
        return [
            group[0] if by_s3 else b"".join(islice(read, len(group))) for group, by_s3 in zip(some, copied, strict=True)
        ]

    def send(number: int, part: bytes | ByteRange) -> str:
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


def _uploaded(target: str, upload: str, groups: Sequence[list[ByteRange]]) -> dict[int, str]:
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


def _read(piece: ByteRange) -> bytes:
    return aws.read_object(settings.bucket(), piece.key, piece.start, piece.end)
