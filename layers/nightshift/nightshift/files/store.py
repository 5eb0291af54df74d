"""Files: their records in the table ``Files`` (pk account, sk file id) and their bytes in the bucket.

A record that goes, deleted or expired, takes its bytes along: PurgeFile follows the table's stream.
"""

import time
import urllib.parse
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from nightshift.core import aws, settings
from nightshift.core.errors import NotFoundError
from nightshift.core.ids import new_id

BLOCK_BYTES = 4 * 1024 * 1024
# Blocks that are read while one is looked at.
BLOCKS_AHEAD = 2
DOWNLOAD_SECONDS = 900
# How long a presigned upload may take to begin.
UPLOAD_SECONDS = 3600
CONTENT_TYPE = "application/jsonl"


def key(account_id: str, file_id: str) -> str:
    """Where the file's bytes are."""
    return f"files/{account_id}/{file_id}"


def create(
    account_id: str,
    *,
    filename: str,
    purpose: str,
    content: bytes,
    expires_at: int | None = None,
    asset_group: str | None = None,
) -> dict[str, Any]:
    """Store a small file whole and return its item. The bytes come first: a record never points at nothing."""
    file_id = new_id("file")
    aws.client("s3").put_object(
        Bucket=settings.bucket(), Key=key(account_id, file_id), Body=content, ContentType=CONTENT_TYPE
    )
    return record(
        account_id,
        file_id,
        filename=filename,
        purpose=purpose,
        size=len(content),
        expires_at=expires_at,
        asset_group=asset_group,
    )


def record(
    account_id: str,
    file_id: str,
    *,
    filename: str,
    purpose: str,
    size: int,
    expires_at: int | None,
    created_at: int | None = None,
    asset_group: str | None = None,
) -> dict[str, Any]:
    """Record a file whose bytes are in the bucket; the same id again replaces the record."""
    item = {
        "pk": account_id,
        "sk": file_id,
        "filename": filename,
        "purpose": purpose,
        "bytes": size,
        "status": "processed",
        "created_at": created_at or int(time.time()),
        "expires_at": expires_at,
        "asset_group": asset_group,
    }
    aws.client("dynamodb").put_item(TableName=settings.table("files"), Item=aws.item(item))
    return item


def expect(
    account_id: str,
    *,
    filename: str,
    purpose: str,
    size: int,
    expires_seconds: int | None = None,
    asset_group: str | None = None,
) -> tuple[dict[str, Any], str, dict[str, str]]:
    """Record a file whose ``size`` bytes the caller will put into the bucket itself.

    Returns its item (status ``uploaded``, gone after ``UPLOAD_SECONDS`` if nothing came), and the URL and the headers
    of the one PUT that it takes: exactly so many bytes, and only where nothing was put before, so that a file cannot
    change after it was checked.
    """
    now = int(time.time())
    item = {
        "pk": account_id,
        "sk": new_id("file"),
        "filename": filename,
        "purpose": purpose,
        "bytes": size,
        "status": "uploaded",
        "created_at": now,
        "expires_at": now + UPLOAD_SECONDS,
        "expires_seconds": expires_seconds,
        "asset_group": asset_group,
    }
    aws.client("dynamodb").put_item(TableName=settings.table("files"), Item=aws.item(item))
    url = aws.client("s3").generate_presigned_url(
        "put_object",
        Params={
            "Bucket": settings.bucket(),
            "Key": key(account_id, str(item["sk"])),
            "ContentLength": size,
            "ContentType": CONTENT_TYPE,
            "IfNoneMatch": "*",
        },
        ExpiresIn=UPLOAD_SECONDS,
    )
    return item, url, {"Content-Length": str(size), "Content-Type": CONTENT_TYPE, "If-None-Match": "*"}


def get(account_id: str, file_id: str, param: str = "file_id") -> dict[str, Any]:
    """The file's item; ``param`` is what the caller named it by.

    A file that the caller put itself turns ``processed`` as soon as its bytes are there.

    Raises:
        NotFoundError: unknown, deleted, expired or another account's; the answer does not tell which.
    """
    # Only ids that we could have made reach the table: keys have a length limit there.
    if file_id.startswith("file_") and len(file_id) < 64:
        found = aws.client("dynamodb").get_item(
            TableName=settings.table("files"), Key=aws.item({"pk": account_id, "sk": file_id}), ConsistentRead=True
        )
        if "Item" in found:
            item = aws.plain(found["Item"])
            # TTL deletes late; what has expired is gone at once.
            if item.get("expires_at") is None or item["expires_at"] > time.time():
                return _arrived(item) if item["status"] == "uploaded" else item
    raise NotFoundError("No such file.", code="file_not_found", param=param)


def exists(account_id: str, file_id: str) -> bool:
    """Whether there is such a file."""
    try:
        get(account_id, file_id)
    except NotFoundError:
        return False
    return True


def _arrived(item: dict[str, Any]) -> dict[str, Any]:
    """The item of an expected file: ``processed``, and living as long as was asked, once its bytes are there."""
    try:
        aws.client("s3").head_object(Bucket=settings.bucket(), Key=key(item["pk"], item["sk"]))
    except Exception as error:
        if aws.error_code(error) in ("404", "NoSuchKey"):
            return item
        raise
    seconds = item.get("expires_seconds")
    dynamodb = aws.client("dynamodb")
    try:
        written = dynamodb.update_item(
            TableName=settings.table("files"),
            Key=aws.item({"pk": item["pk"], "sk": item["sk"]}),
            UpdateExpression="SET #status = :processed"
            + (", expires_at = :expires_at" if seconds else " REMOVE expires_at"),
            ConditionExpression="#status = :uploaded",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=aws.item(
                {
                    ":processed": "processed",
                    ":uploaded": "uploaded",
                    ":expires_at": item["created_at"] + seconds if seconds else None,
                }
            ),
            ReturnValues="ALL_NEW",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        # Somebody else saw it first, or deleted it.
        return get(item["pk"], item["sk"])
    return aws.plain(written["Attributes"])


def list_page(
    account_id: str, *, limit: int, after: str | None, ascending: bool, purpose: str | None
) -> tuple[list[dict[str, Any]], bool]:
    """The account's files by age, after the id ``after``; then whether there are more."""
    now = int(time.time())
    values: dict[str, Any] = {":pk": account_id, ":prefix": "file_", ":now": now}
    conditions = ["(attribute_not_exists(expires_at) OR expires_at > :now)"]
    if purpose is not None:
        values[":purpose"] = purpose
        conditions.append("purpose = :purpose")
    query = {
        "TableName": settings.table("files"),
        "KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)",
        "FilterExpression": " AND ".join(conditions),
        "ExpressionAttributeValues": aws.item(values),
        "ScanIndexForward": ascending,
    }
    found, more = aws.page(query, {"pk": account_id, "sk": after} if after else None, limit)
    return [_arrived(item) if item["status"] == "uploaded" else item for item in found], more


def stored_bytes(account_id: str) -> int:
    """How many bytes the account's files have in all, those included that it may still send."""
    pages = (
        aws.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=settings.table("files"),
            KeyConditionExpression="pk = :pk",
            # A completed upload is a file, and counts as one.
            FilterExpression="(begins_with(sk, :file) OR #status = :pending)"
            # TTL deletes late, and nobody else can delete what has expired.
            " AND (attribute_not_exists(expires_at) OR expires_at > :now)",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=aws.item(
                {":pk": account_id, ":file": "file_", ":pending": "pending", ":now": int(time.time())}
            ),
        )
    )
    return sum(aws.plain(found)["bytes"] for page in pages for found in page["Items"])


def delete(account_id: str, file_id: str) -> None:
    """Delete the file: it is gone at once, and PurgeFile removes its bytes.

    Raises:
        NotFoundError: there is no such file.
    """
    get(account_id, file_id)
    aws.client("dynamodb").delete_item(
        TableName=settings.table("files"), Key=aws.item({"pk": account_id, "sk": file_id})
    )


def purge(account_id: str, file_id: str) -> None:
    """Remove the bytes of a file whose record is gone."""
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=key(account_id, file_id))


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
            "ResponseContentType": CONTENT_TYPE,
            # RFC 6266: the plain name for old clients, the encoded one for all others.
            "ResponseContentDisposition": f"attachment; filename=\"{plain_name}\"; filename*=UTF-8''{encoded}",
        },
        ExpiresIn=DOWNLOAD_SECONDS,
    )


def read_blocks(account_id: str, file_id: str, size: int) -> Iterator[bytes]:
    """The file's bytes in blocks, by ranged reads that run ahead of who looks at them.

    Raises:
        NotFoundError: the bytes are gone.
    """
    ahead: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(BLOCKS_AHEAD) as pool:
        for start in range(0, size, BLOCK_BYTES):
            ahead.append(pool.submit(read_range, account_id, file_id, start, min(size, start + BLOCK_BYTES)))
            if len(ahead) > BLOCKS_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def read_range(account_id: str, file_id: str, start: int, end: int) -> bytes:
    """Bytes ``start`` to ``end`` (not included).

    Raises:
        NotFoundError: the bytes are gone.
    """
    s3 = aws.client("s3")
    try:
        return aws.read_object(settings.bucket(), key(account_id, file_id), start, end)
    except s3.exceptions.NoSuchKey:
        raise NotFoundError("No such file.", code="file_not_found", param="input_file_id") from None
