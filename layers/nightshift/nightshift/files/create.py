"""Create a file: from its bytes, or for bytes that the caller puts into S3 with a presigned URL."""

import time
from typing import BinaryIO

import msgspec

from nightshift.accounts import store as accounts
from nightshift.core.ids import new_id
from nightshift.files import store as files
from nightshift.files.record import File, Purpose

# A presigned PUT has to begin within this time.
UPLOAD_SECONDS = 3600


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller gives to create a file; ``expires_seconds`` counts from the file's creation."""

    filename: str
    purpose: Purpose
    expires_seconds: int | None = None
    asset_group: str | None = None


class PresignedFile(msgspec.Struct, frozen=True):
    """A file without its bytes, with the URL and the headers of the PUT that uploads them.

    The URL ends at ``file.expires_at``.
    """

    file: File
    url: str
    headers: dict[str, str]


def create_file(account_id: str, new: NewFile, content: bytes) -> File:
    """Store a file that is small enough to come in one request.

    Raises:
        LimitExceededError: the account's quota of stored bytes would be exceeded.
    """
    return create_from(account_id, new, content, len(content))


def create_from(account_id: str, new: NewFile, content: bytes | BinaryIO, size: int) -> File:
    """Store a file of ``size`` bytes.

    Raises:
        LimitExceededError: the account's quota of stored bytes would be exceeded.
    """
    check_storage(account_id, size)
    file = files.put(_arriving(account_id, new, size, int(time.time())))
    files.put_content(file, content)
    return files.arrived(file)


def create_presigned(account_id: str, new: NewFile, size: int) -> PresignedFile:
    """Record a file of ``size`` bytes that the caller uploads itself.

    Raises:
        LimitExceededError: the account's quota of stored bytes would be exceeded.
    """
    check_storage(account_id, size)
    now = int(time.time())
    file = _arriving(account_id, new, size, now)
    url, headers = files.upload_url(file, UPLOAD_SECONDS)
    return PresignedFile(files.put(file), url, headers)


def check_storage(account_id: str, more: int) -> None:
    """Check that the account may store ``more`` bytes.

    Raises:
        LimitExceededError: its quota of stored bytes would be exceeded.
    """
    accounts.get(account_id).quotas.check_storage(files.stored_bytes(account_id), more)


def _arriving(account_id: str, new: NewFile, size: int, now: int) -> File:
    """A file whose bytes are to come. If they do not, it expires soon, and the bytes that have arrived are deleted."""
    return File(
        account_id=account_id,
        id=new_id("file"),
        filename=new.filename,
        purpose=new.purpose,
        size=size,
        status="uploaded",
        created_at=now,
        expires_at=now + UPLOAD_SECONDS,
        expires_seconds=new.expires_seconds,
        asset_group=new.asset_group,
    )
