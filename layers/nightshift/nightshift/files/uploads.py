"""Uploads: a file that arrives in parts (OpenAI's Uploads API), because it is too large for one request.

An upload is an item in the table ``Files`` (pk account, sk ``upload_…``). Its parts are objects under
``uploads/<account>/<upload>/`` and recorded nowhere else; the bucket's lifecycle deletes them after a day.
"""

import contextlib
import hashlib
import time
from typing import Literal

import msgspec
from msgspec.structs import replace

from nightshift.core import bucket, concat
from nightshift.core.concat import ByteRange
from nightshift.core.errors import BadRequestError, ConflictError, NotFoundError
from nightshift.core.ids import derived_id, new_id
from nightshift.core.limits import MAX_CALL_BYTES
from nightshift.core.table import Table
from nightshift.files import store as files
from nightshift.files.create import NewFile, check_storage
from nightshift.files.record import File, Upload

LIFETIME_SECONDS = 3600

_UPLOADS = Table("files")


class PresignedPart(msgspec.Struct, frozen=True):
    """A part without its bytes, with the URL and the headers of the PUT that uploads them."""

    id: str
    url: str
    headers: dict[str, str]


def create(account_id: str, new: NewFile, *, size: int, mime_type: str) -> Upload:
    """Begin an upload of ``size`` bytes.

    Raises:
        LimitExceededError: the account's quota of stored bytes would be exceeded.
    """
    check_storage(account_id, size)
    now = int(time.time())
    upload = Upload(
        account_id=account_id,
        id=new_id("upload"),
        filename=new.filename,
        purpose=new.purpose,
        size=size,
        mime_type=mime_type,
        status="pending",
        created_at=now,
        expires_at=now + LIFETIME_SECONDS,
        expires_seconds=new.expires_seconds,
    )
    _UPLOADS.put(msgspec.to_builtins(upload))
    return upload


def get(account_id: str, upload_id: str) -> Upload:
    """The upload with this id; a pending one whose time is over is ``expired``.

    Raises:
        NotFoundError: unknown, deleted or another account's; the error is the same for all of them.
    """
    if upload_id.startswith("upload_") and len(upload_id) < 64:
        found = _UPLOADS.get(account_id, upload_id, consistent=True)
        if found is not None:
            upload = msgspec.convert(found, Upload)
            late = upload.status == "pending" and upload.expires_at <= time.time()
            return replace(upload, status="expired") if late else upload
    raise NotFoundError("Upload not found.", code="upload_not_found", param="upload_id")


def add_part(upload: Upload, content: bytes) -> str:
    """Store one part and return its id.

    Raises:
        BadRequestError: the upload is not pending, or its parts have more than twice its bytes. Some more are allowed,
            because a client that lost a response sends the part again.
    """
    _check_room(upload, len(content), "data")
    part_id = new_id("part")
    bucket.put(_prefix(upload) + part_id, content)
    return part_id


def presign_part(upload: Upload, size: int) -> PresignedPart:
    """A part of ``size`` bytes that the caller puts into S3 itself.

    Raises:
        BadRequestError: the upload is not pending, or its parts would have more than twice its bytes.
    """
    _check_room(upload, size, "bytes")
    part_id = new_id("part")
    seconds = max(1, upload.expires_at - int(time.time()))
    url, headers = bucket.presigned_put(
        _prefix(upload) + part_id, size=size, content_type="application/octet-stream", seconds=seconds
    )
    return PresignedPart(part_id, url, headers)


def complete(upload: Upload, part_ids: list[str], md5: str | None) -> tuple[Upload, File]:
    """Join the parts in the order of ``part_ids`` into a file. Returns the completed upload and the file.

    Of several requests the first to end completes the upload. The same request again has the same answer, because a
    client that lost the first response repeats it.

    Raises:
        BadRequestError: the upload is neither pending nor completed, a part is unknown or named twice, or the size or
            the MD5 of the parts does not match.
        ConflictError: a request with other parts, another order or another MD5 has completed the upload.
        NotFoundError: the upload was completed before, and its file was deleted since.
    """
    # Each request joins into a file of its own, so that none touches the bytes or the record of another's.
    file_id = derived_id("file", upload.id, *part_ids, (md5 or "").lower(), at=upload.created_at)
    if upload.status != "completed":
        _check_pending(upload)
        _join(upload, file_id, part_ids, md5)
        upload = _end(upload, "completed", file_id)
        if upload.file_id != file_id:
            _discard(upload.account_id, file_id)
    if upload.file_id is None:
        raise _not_pending(upload)  # another request has cancelled it meanwhile
    if upload.file_id != file_id:
        message = "The upload was completed with other part_ids, in another order, or with another md5."
        raise ConflictError(message, code="upload_completed", param="upload_id")
    return upload, files.get(upload.account_id, file_id)


def cancel(upload: Upload) -> Upload:
    """End the upload without a file. A cancelled upload is returned unchanged.

    Raises:
        BadRequestError: the upload is completed or expired.
    """
    if upload.status == "cancelled":
        return upload
    _check_pending(upload)
    return _end(upload, "cancelled")


def _check_pending(upload: Upload) -> None:
    if upload.status != "pending":
        raise _not_pending(upload)


def _check_room(upload: Upload, more: int, param: str) -> None:
    _check_pending(upload)
    if sum(_part_sizes(upload).values()) + more > 2 * upload.size + MAX_CALL_BYTES:
        message = f"The parts have more than twice the {upload.size} bytes that the upload was created for."
        raise BadRequestError(message, code="upload_bytes_mismatch", param=param)


def _not_pending(upload: Upload) -> BadRequestError:
    message = f"The upload is {upload.status}; only a pending upload can be changed."
    return BadRequestError(message, code="upload_not_pending", param="upload_id")


def _join(upload: Upload, file_id: str, part_ids: list[str], md5: str | None) -> None:
    """Join the parts into the file ``file_id`` and record it."""
    pieces = _pieces(upload, part_ids)
    digest = hashlib.md5(usedforsecurity=False) if md5 else None
    file = File(
        account_id=upload.account_id,
        id=file_id,
        filename=upload.filename,
        purpose=upload.purpose,
        size=upload.size,
        status="uploaded",
        created_at=upload.created_at,
        # Until the parts are joined, because the bytes of a killed call are then deleted with this record.
        expires_at=int(time.time()) + LIFETIME_SECONDS,
        expires_seconds=upload.expires_seconds,
    )
    files.put_new(file)
    concat.join(pieces, files.key(upload.account_id, file_id), digest)
    if digest and digest.hexdigest() != str(md5).lower():
        _discard(upload.account_id, file_id)
        message = f"The MD5 of the joined parts is {digest.hexdigest()}, which does not match the md5 given."
        raise BadRequestError(message, code="upload_md5_mismatch", param="md5")
    try:
        files.arrived(file)
    except NotFoundError:
        # A caller, or a repetition that has lost, has deleted the file. The bytes came after that: they go with another
        # record.
        files.put_new(file)
        _discard(upload.account_id, file_id)


def _discard(account_id: str, file_id: str) -> None:
    """Delete a file that is not the upload's, unless a repetition of its request has deleted it."""
    with contextlib.suppress(NotFoundError):
        files.delete(account_id, file_id)


def _pieces(upload: Upload, part_ids: list[str]) -> list[ByteRange]:
    """The bytes of the parts, in the order given.

    Raises:
        BadRequestError: a part is unknown or named twice, or their size is not the upload's.
    """
    sizes = _part_sizes(upload)
    unknown = [part_id for part_id in part_ids if part_id not in sizes]
    if unknown:
        message = f"Part not found: the upload has no part {unknown[0][:64]!a}."
        raise BadRequestError(message, code="part_not_found", param="part_ids")
    if len(set(part_ids)) != len(part_ids):
        message = "part_ids names a part twice; name each part once."
        raise BadRequestError(message, code="invalid_value", param="part_ids")
    size = sum(sizes[part_id] for part_id in part_ids)
    if size != upload.size:
        message = f"The parts have {size} bytes, which does not match the {upload.size} bytes of the upload."
        raise BadRequestError(message, code="upload_bytes_mismatch", param="bytes")
    return [ByteRange(_prefix(upload) + part_id, 0, sizes[part_id]) for part_id in part_ids]


def _end(upload: Upload, status: Literal["completed", "cancelled"], file_id: str | None = None) -> Upload:
    """Move a pending upload to ``status``, or return it as another request has left it."""
    ended = _UPLOADS.update(
        upload.account_id,
        upload.id,
        set={"status": status, "file_id": file_id},
        condition="#status = :pending",
        pending="pending",
    )
    return msgspec.convert(ended, Upload) if ended else get(upload.account_id, upload.id)


def _part_sizes(upload: Upload) -> dict[str, int]:
    return bucket.sizes(_prefix(upload))


def _prefix(upload: Upload) -> str:
    return f"uploads/{upload.account_id}/{upload.id}/"
