"""Concatenation of byte ranges of S3 objects into one object.

S3 copies large ranges itself, as parts of a multipart upload. Small ranges are read and uploaded again, because S3
accepts no small part but the last.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from nightshift.core import aws, bucket, settings

if TYPE_CHECKING:
    import hashlib

# S3's limits: every part but the last has 5 MiB to 5 GiB, and an upload has at most 10,000 parts.
MIN_PART_BYTES = 5 * 1024 * 1024
MAX_PARTS = 10_000

_THREADS = 16
# Parts that pass through memory at the same time.
_PARTS_AT_ONCE = 4
_CONTENT_TYPE = "application/jsonl"


class ByteRange(Struct, frozen=True):
    """Bytes ``start`` to ``end`` (not included) of the object ``key``."""

    key: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


Part = Sequence[ByteRange]


def join(ranges: Sequence[ByteRange], target: str, digest: "hashlib._Hash | None" = None) -> int:
    """Write ``ranges``, one after the other, as the object ``target``; returns its size in bytes.

    ``digest`` is updated with every byte, in order. Without it S3 copies each large range itself, and four parts of
    less than ``2 * MIN_PART_BYTES`` are in memory at a time; with it every range passes through memory.
    """
    parts = plan_parts(ranges)
    if _fits_one_put(parts):
        return _put(parts, target, digest)
    return _Upload.begin(target, parts).run(digest)


def resume(ranges: Sequence[ByteRange], target: str) -> int:
    """As ``join``; continues the upload that an interrupted call with the same ``ranges`` and ``target`` has left."""
    parts = plan_parts(ranges)
    if _fits_one_put(parts):
        return _put(parts, target)
    return (_Upload.find(target, parts) or _Upload.begin(target, parts)).run()


def plan_parts(ranges: Sequence[ByteRange]) -> list[Part]:
    """Group ``ranges`` into at most ``MAX_PARTS`` parts, in order.

    Every part but the last has at least ``MIN_PART_BYTES``, or more if there were too many parts otherwise. A part of
    one such range can be copied by S3; any other part has less than twice these bytes and passes through memory.
    """
    planned: list[Part] = []
    part: list[ByteRange] = []
    size = 0
    least = max(MIN_PART_BYTES, -(-sum(each.size for each in ranges) // (MAX_PARTS - 1)))
    for each in ranges:
        rest = each
        missing = least - size
        if part and each.size >= missing + least:
            # Complete the part with the head of a large range, so that S3 can copy the rest of the range.
            planned.append([*part, ByteRange(each.key, each.start, each.start + missing)])
            part, size = [], 0
            rest = ByteRange(each.key, each.start + missing, each.end)
        if rest.size:
            part.append(rest)
            size += rest.size
        if size >= least:
            planned.append(part)
            part, size = [], 0
    if part:
        planned.append(part)
    return planned


def _size(part: Part) -> int:
    return sum(each.size for each in part)


def _fits_one_put(parts: Sequence[Part]) -> bool:
    return not parts or (len(parts) == 1 and _size(parts[0]) < 2 * MIN_PART_BYTES)


def _put(parts: Sequence[Part], target: str, digest: "hashlib._Hash | None" = None) -> int:
    """Write the parts, which fit into memory, with one call."""
    with ThreadPoolExecutor(_THREADS) as pool:
        content = b"".join(_read_parts(pool, parts))
    if digest is not None:
        digest.update(content)
    bucket.put(target, content, content_type=_CONTENT_TYPE)
    return len(content)


class _Upload:
    """A multipart upload of ``parts`` to ``target``. ``etags`` are those of the first parts, which S3 has already."""

    def __init__(self, target: str, upload_id: str, parts: Sequence[Part], etags: Sequence[str] = ()) -> None:
        self._parts = parts
        self._etags = list(etags)
        self._named: Any = {"Bucket": settings.bucket(), "Key": target, "UploadId": upload_id}

    @classmethod
    def begin(cls, target: str, parts: Sequence[Part]) -> "_Upload":
        begun = aws.client("s3").create_multipart_upload(
            Bucket=settings.bucket(), Key=target, ContentType=_CONTENT_TYPE
        )
        return cls(target, begun["UploadId"], parts)

    @classmethod
    def find(cls, target: str, parts: Sequence[Part]) -> "_Upload | None":
        """The upload that an interrupted call has left, if any. The bucket deletes such uploads after a day."""
        found = aws.client("s3").list_multipart_uploads(Bucket=settings.bucket(), Prefix=target)
        for upload in found.get("Uploads", []):
            if upload["Key"] == target:
                etags = _uploaded_etags(target, upload["UploadId"], parts)
                return cls(target, upload["UploadId"], parts, etags)
        return None

    def run(self, digest: "hashlib._Hash | None" = None) -> int:
        """Upload the parts that are missing and complete the upload; returns the size of all parts in bytes."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(len(self._etags), len(self._parts), _PARTS_AT_ONCE):
                self._upload(pool, self._parts[start : start + _PARTS_AT_ONCE], digest)
        numbered: Any = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        aws.client("s3").complete_multipart_upload(**self._named, MultipartUpload={"Parts": numbered})
        return sum(map(_size, self._parts))

    def _upload(self, pool: ThreadPoolExecutor, parts: Sequence[Part], digest: "hashlib._Hash | None") -> None:
        """Upload the next ``parts`` side by side. Their bytes are in memory until this returns."""
        contents: Sequence[bytes | ByteRange]
        if digest is None:
            contents = _contents(pool, parts)
        else:
            contents = read = _read_parts(pool, parts)
            for content in read:
                digest.update(content)
        first = len(self._etags) + 1
        self._etags += pool.map(self._upload_part, range(first, first + len(parts)), contents)

    def _upload_part(self, number: int, content: bytes | ByteRange) -> str:
        """Upload one part, or let S3 copy it; returns its ETag."""
        s3 = aws.client("s3")
        if isinstance(content, bytes):
            return s3.upload_part(**self._named, PartNumber=number, Body=content)["ETag"]
        copied = s3.upload_part_copy(
            **self._named,
            PartNumber=number,
            CopySource={"Bucket": settings.bucket(), "Key": content.key},
            CopySourceRange=f"bytes={content.start}-{content.end - 1}",
        )
        return copied["CopyPartResult"]["ETag"]


def _contents(pool: ThreadPoolExecutor, parts: Sequence[Part]) -> list[bytes | ByteRange]:
    """The bytes of each part, or the one range that S3 copies as the part."""
    read = iter(_read_parts(pool, [part for part in parts if not _can_be_copied(part)]))
    return [part[0] if _can_be_copied(part) else next(read) for part in parts]


def _can_be_copied(part: Part) -> bool:
    return len(part) == 1 and part[0].size >= MIN_PART_BYTES


def _read_parts(pool: ThreadPoolExecutor, parts: Sequence[Part]) -> list[bytes]:
    read = pool.map(_read, chain.from_iterable(parts))
    return [b"".join(islice(read, len(part))) for part in parts]


def _uploaded_etags(target: str, upload_id: str, parts: Sequence[Part]) -> list[str]:
    """The ETags of the first ``parts`` that S3 has already.

    The bytes of a range never change, so a part with the right number and size, after others of the same kind, is the
    part to upload.
    """
    sizes = [_size(part) for part in parts]
    etags: list[str] = []
    pages = aws.client("s3").get_paginator("list_parts")
    for page in pages.paginate(Bucket=settings.bucket(), Key=target, UploadId=upload_id):
        for part in page.get("Parts", []):
            number = len(etags) + 1
            if number > len(sizes) or (part["PartNumber"], part["Size"]) != (number, sizes[number - 1]):
                return etags
            etags.append(part["ETag"])
    return etags


def _read(place: ByteRange) -> bytes:
    return aws.read_object(settings.bucket(), place.key, place.start, place.end)
