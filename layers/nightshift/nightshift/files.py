"""Files: their records in the table ``Files`` (pk account, sk file id) and their bytes in the bucket."""

import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from nightshift import aws, settings
from nightshift.errors import NotFoundError
from nightshift.ids import new_id

BLOCK_BYTES = 8 * 1024 * 1024
DOWNLOAD_SECONDS = 900


def key(account_id: str, file_id: str) -> str:
    """Where the file's bytes are."""
    return f"files/{account_id}/{file_id}"


def create(
    account_id: str, *, filename: str, purpose: str, content: bytes, expires_at: int | None = None
) -> dict[str, Any]:
    """Store a small file whole and return its item. The bytes come first: a record never points at nothing."""
    file_id = new_id("file")
    aws.client("s3").put_object(
        Bucket=settings.bucket(),
        Key=key(account_id, file_id),
        Body=content,
        ContentType="application/jsonl",
    )
    return record(account_id, file_id, filename=filename, purpose=purpose, size=len(content), expires_at=expires_at)


def record(
    account_id: str, file_id: str, *, filename: str, purpose: str, size: int, expires_at: int | None
) -> dict[str, Any]:
    """Record a file whose bytes are in the bucket; the same id again replaces the record."""
    item = {
        "pk": account_id,
        "sk": file_id,
        "filename": filename,
        "purpose": purpose,
        "bytes": size,
        "status": "processed",
        "created_at": int(time.time()),
        "expires_at": expires_at,
    }
    aws.client("dynamodb").put_item(TableName=settings.table("files"), Item=aws.item(item))
    return item


def get(account_id: str, file_id: str) -> dict[str, Any]:
    """The file's item.

    Raises:
        NotFoundError: unknown, deleted, expired or another account's; the answer does not tell which.
    """
    # Only ids that we could have made reach the table: keys have a length limit there.
    if file_id.startswith("file_") and len(file_id) < 64:
        found = aws.client("dynamodb").get_item(
            TableName=settings.table("files"), Key=aws.item({"pk": account_id, "sk": file_id})
        )
        if "Item" in found:
            item = aws.plain(found["Item"])
            # TTL deletes late; what has expired is gone at once.
            if item.get("expires_at") is None or item["expires_at"] > time.time():
                return item
    raise NotFoundError("No such file.", code="file_not_found", param="file_id")


def download_url(item: dict[str, Any]) -> str:
    """A presigned URL for the file's bytes, good for ``DOWNLOAD_SECONDS``, that saves under the original name."""
    name = str(item["filename"])
    plain_name = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in name)
    encoded = urllib.parse.quote(name, safe="")
    return aws.client("s3").generate_presigned_url(
        "get_object",
        Params={
            "Bucket": settings.bucket(),
            "Key": key(item["pk"], item["sk"]),
            "ResponseContentType": "application/jsonl",
            # RFC 6266: the plain name for old clients, the encoded one for all others.
            "ResponseContentDisposition": f"attachment; filename=\"{plain_name}\"; filename*=UTF-8''{encoded}",
        },
        ExpiresIn=DOWNLOAD_SECONDS,
    )


def read_blocks(account_id: str, file_id: str, size: int) -> Iterator[bytes]:
    """The file's bytes in blocks, by ranged reads."""
    for start in range(0, size, BLOCK_BYTES):
        yield read_range(account_id, file_id, start, min(size, start + BLOCK_BYTES))


def read_range(account_id: str, file_id: str, start: int, end: int) -> bytes:
    """Bytes ``start`` to ``end`` (not included).

    Raises:
        NotFoundError: the bytes are gone.
    """
    s3 = aws.client("s3")
    try:
        found = s3.get_object(Bucket=settings.bucket(), Key=key(account_id, file_id), Range=f"bytes={start}-{end - 1}")
        return found["Body"].read()
    except s3.exceptions.NoSuchKey:
        raise NotFoundError("No such file.", code="file_not_found", param="input_file_id") from None
