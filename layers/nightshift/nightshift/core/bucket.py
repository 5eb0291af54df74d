"""Objects in the stack's bucket. An object that does not exist is an answer (None), not an error."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from nightshift.core import aws, settings

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_MISSING = frozenset({"404", "NoSuchKey"})


def head(key: str) -> "HeadObjectOutputTypeDef | None":
    """The object's size and metadata, as S3's HeadObject returns them; None where there is no such object."""
    s3 = aws.client("s3")
    try:
        return s3.head_object(Bucket=settings.bucket(), Key=key)
    except s3.exceptions.ClientError as error:
        if aws.error_code(error) in _MISSING:
            return None
        raise


def put(key: str, content: bytes | BinaryIO, *, content_type: str | None = None) -> None:
    """Write an object, in place of one with the same key. A file is written from where it stands to its end."""
    typed: Any = {} if content_type is None else {"ContentType": content_type}
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=key, Body=content, **typed)


def read(key: str, start: int = 0, end: int | None = None) -> bytes | None:
    """Bytes ``start`` to ``end`` (not included), all of the object without ``end``; None where there is no object."""
    try:
        return aws.read_object(settings.bucket(), key, start, end)
    except aws.client("s3").exceptions.NoSuchKey:
        return None


def delete(key: str) -> None:
    """Delete an object, where there is one."""
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=key)


def erase(prefix: str) -> int:
    """Delete every object whose key begins with ``prefix``, in all versions that a bucket with versioning keeps.

    Returns how many there were.

    Raises:
        OSError: some could not be deleted.
    """
    s3 = aws.client("s3")
    erased: set[str] = set()
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=settings.bucket(), Prefix=prefix):
        versions: Any = [
            {"Key": found["Key"], "VersionId": found["VersionId"]}
            for found in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        ]
        if versions:
            done = s3.delete_objects(Bucket=settings.bucket(), Delete={"Objects": versions, "Quiet": True})
            if errors := done.get("Errors"):
                raise OSError(f"{len(errors)} objects were not deleted: {errors[0].get('Code')}")
            erased.update(version["Key"] for version in versions)
    return len(erased)


def sizes(prefix: str) -> dict[str, int]:
    """The bytes of each object whose key begins with ``prefix``, by the rest of the key."""
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=settings.bucket(), Prefix=prefix)
    return {found["Key"].removeprefix(prefix): found["Size"] for page in pages for found in page.get("Contents", [])}


def folders(prefix: str) -> Iterator[str]:
    """The next part of the keys that begin with ``prefix``, up to a slash: each once."""
    pages = aws.client("s3").get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=settings.bucket(), Prefix=prefix, Delimiter="/"):
        for found in page.get("CommonPrefixes", []):
            yield found["Prefix"].removeprefix(prefix).removesuffix("/")


def names(prefix: str, first: str, end: str) -> Iterator[str]:
    """The rest of the keys that begin with ``prefix``, in order, where it is between ``first`` and ``end``."""
    pages = aws.client("s3").get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=settings.bucket(), Prefix=prefix, StartAfter=prefix + first):
        for found in page.get("Contents", []):
            name = found["Key"].removeprefix(prefix)
            if name >= end:
                return
            yield name


def presigned_put(key: str, *, size: int, content_type: str, seconds: int) -> tuple[str, dict[str, str]]:
    """A URL that takes one PUT of ``size`` bytes within ``seconds``, and the headers that the PUT has to carry.

    The PUT fails where the object exists.
    """
    signed = {"ContentLength": size, "ContentType": content_type, "IfNoneMatch": "*"}
    url = aws.client("s3").generate_presigned_url(
        "put_object", Params={"Bucket": settings.bucket(), "Key": key, **signed}, ExpiresIn=seconds
    )
    return url, {"Content-Length": str(size), "Content-Type": content_type, "If-None-Match": "*"}


def origin() -> str:
    """Where presigned URLs lead: their scheme and host."""
    url = aws.client("s3").generate_presigned_url("get_object", Params={"Bucket": settings.bucket(), "Key": "any"})
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def presigned_get(key: str, *, content_type: str, disposition: str, seconds: int, head: bool = False) -> str:
    """A URL that returns the object for ``seconds``, with these two headers; with ``head``, for a HEAD."""
    shown = {"ResponseContentType": content_type, "ResponseContentDisposition": disposition}
    return aws.client("s3").generate_presigned_url(
        "head_object" if head else "get_object",
        Params={"Bucket": settings.bucket(), "Key": key, **shown},
        ExpiresIn=seconds,
    )
