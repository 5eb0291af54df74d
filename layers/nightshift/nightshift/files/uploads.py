"""Uploads: a file that arrives in parts (OpenAI's Uploads API), for what is too big for one call.

An upload is an item in the table ``Files`` (pk account, sk ``upload_…``). Its parts are objects under
``uploads/<account>/<upload>/`` and are recorded nowhere else; the bucket's lifecycle removes them after a day.
"""

import hashlib
import time
from typing import Any

from nightshift.core import aws, concat, settings
from nightshift.core.concat import ByteRange
from nightshift.core.errors import BadRequestError, NotFoundError
from nightshift.core.ids import derived_id, new_id
from nightshift.core.limits import MAX_CALL_BYTES
from nightshift.files import store as files

LIFETIME_SECONDS = 3600


def create(
    account_id: str, *, filename: str, purpose: str, size: int, mime_type: str, expires_seconds: int | None
) -> dict[str, Any]:
    now = int(time.time())
    item = {
        "pk": account_id,
        "sk": new_id("upload"),
        "filename": filename,
        "purpose": purpose,
        "bytes": size,
        "mime_type": mime_type,
        "expires_seconds": expires_seconds,
        "status": "pending",
        "created_at": now,
        "expires_at": now + LIFETIME_SECONDS,
    }
    aws.client("dynamodb").put_item(TableName=settings.table("files"), Item=aws.item(item))
    return item


def get(account_id: str, upload_id: str) -> dict[str, Any]:
    """The upload's item; a pending one that is past its time is ``expired``.

    Raises:
        NotFoundError: unknown, long expired or another account's.
    """
    if upload_id.startswith("upload_") and len(upload_id) < 64:
        found = aws.client("dynamodb").get_item(
            TableName=settings.table("files"),
            Key=aws.item({"pk": account_id, "sk": upload_id}),
            ConsistentRead=True,
        )
        if "Item" in found:
            item = aws.plain(found["Item"])
            if item["status"] == "pending" and item["expires_at"] <= time.time():
                item["status"] = "expired"
            return item
    raise NotFoundError("No such upload.", code="upload_not_found", param="upload_id")


def add_part(upload: dict[str, Any], content: bytes) -> str:
    """Keep one part and return its id.

    Raises:
        BadRequestError: the upload is not pending, or has far more bytes than it was created for. Some more are taken,
            because a client that lost an answer sends a part again.
    """
    _require_pending(upload)
    if sum(_part_sizes(upload).values()) + len(content) > 2 * upload["bytes"] + MAX_CALL_BYTES:
        message = f"The upload was created for {upload['bytes']} bytes, and its parts have twice as many."
        raise BadRequestError(message, code="upload_bytes_mismatch", param="data")
    part_id = new_id("part")
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=_prefix(upload) + part_id, Body=content)
    return part_id


def complete(upload: dict[str, Any], part_ids: list[str], md5: str | None) -> dict[str, Any]:
    """Join the parts in the order given into a file, and return the upload's item with its ``file_id``.

    An upload that is completed already is returned as it is: a client that lost the first answer asks again.

    Raises:
        BadRequestError: the upload is neither pending nor completed, a part is unknown or named twice, or the bytes
            or the md5 differ from what was said.
    """
    if upload["status"] == "completed":
        return upload
    _require_pending(upload)
    sizes = _part_sizes(upload)
    unknown = [part_id for part_id in part_ids if part_id not in sizes]
    if unknown:
        raise BadRequestError(f"The upload has no part {unknown[0][:64]!a}.", code="part_not_found", param="part_ids")
    if len(set(part_ids)) != len(part_ids):
        raise BadRequestError("A part is named twice.", code="invalid_value", param="part_ids")
    size = sum(sizes[part_id] for part_id in part_ids)
    if size != upload["bytes"]:
        message = f"The parts have {size} bytes; the upload was created for {upload['bytes']}."
        raise BadRequestError(message, code="upload_bytes_mismatch", param="bytes")
    file_id = derived_id("file", upload["sk"], at=upload["created_at"])
    digest = hashlib.md5(usedforsecurity=False) if md5 else None
    target = files.key(upload["pk"], file_id)
    concat.join([ByteRange(_prefix(upload) + part_id, 0, sizes[part_id]) for part_id in part_ids], target, digest)
    if digest and digest.hexdigest() != str(md5).lower():
        aws.client("s3").delete_object(Bucket=settings.bucket(), Key=target)
        raise BadRequestError("The md5 of the joined parts differs.", code="upload_md5_mismatch", param="md5")
    expires = upload.get("expires_seconds")
    files.record(
        upload["pk"],
        file_id,
        filename=upload["filename"],
        purpose=upload["purpose"],
        size=size,
        created_at=upload["created_at"],
        expires_at=upload["created_at"] + expires if expires else None,
    )
    return _end(upload, "completed", file_id) or get(upload["pk"], upload["sk"])


def cancel(upload: dict[str, Any]) -> dict[str, Any]:
    """Take no more parts.

    Raises:
        BadRequestError: the upload is not pending.
    """
    if upload["status"] == "cancelled":
        return upload
    _require_pending(upload)
    return _end(upload, "cancelled") or get(upload["pk"], upload["sk"])


def _end(upload: dict[str, Any], status: str, file_id: str | None = None) -> dict[str, Any] | None:
    """Move a pending upload to its end, once; None where somebody else did."""
    dynamodb = aws.client("dynamodb")
    try:
        written = dynamodb.update_item(
            TableName=settings.table("files"),
            Key=aws.item({"pk": upload["pk"], "sk": upload["sk"]}),
            UpdateExpression="SET #status = :status" + (", file_id = :file_id" if file_id else ""),
            ConditionExpression="#status = :pending",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=aws.item({":status": status, ":pending": "pending", ":file_id": file_id}),
            ReturnValues="ALL_NEW",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return None
    return aws.plain(written["Attributes"])


def _require_pending(upload: dict[str, Any]) -> None:
    if upload["status"] != "pending":
        raise BadRequestError(f"The upload is {upload['status']}.", code="upload_not_pending", param="upload_id")


def _part_sizes(upload: dict[str, Any]) -> dict[str, int]:
    prefix = _prefix(upload)
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=settings.bucket(), Prefix=prefix)
    return {found["Key"].removeprefix(prefix): found["Size"] for page in pages for found in page.get("Contents", [])}


def _prefix(upload: dict[str, Any]) -> str:
    return f"uploads/{upload['pk']}/{upload['sk']}/"
