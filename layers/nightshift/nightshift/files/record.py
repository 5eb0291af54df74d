"""Files and uploads. ``rename`` gives the attribute of the stored item where it is not the field's name."""

from typing import Literal

import msgspec

Purpose = Literal["batch", "batch_output"]


class File(msgspec.Struct, frozen=True, kw_only=True, rename={"account_id": "pk", "id": "sk", "size": "bytes"}):
    """A file of ``size`` bytes. Times are seconds since 1970.

    A presigned file is ``uploaded`` until its bytes are in the bucket. ``expires_at`` is then the end of its URL, and
    ``expires_seconds`` how long the file is kept from ``created_at`` on.
    """

    account_id: str
    id: str
    filename: str
    purpose: Purpose
    size: int
    status: Literal["uploaded", "processed"]
    created_at: int
    expires_at: int | None = None
    expires_seconds: int | None = None
    asset_group: str | None = None

    def has_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Upload(msgspec.Struct, frozen=True, kw_only=True, rename={"account_id": "pk", "id": "sk", "size": "bytes"}):
    """A file of ``size`` bytes that arrives in parts; ``file_id`` is set when it is ``completed``.

    ``expires_at`` is the end of the upload, and ``expires_seconds`` how long its file is kept from ``created_at`` on.
    """

    account_id: str
    id: str
    filename: str
    purpose: Purpose
    size: int
    mime_type: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    created_at: int
    expires_at: int
    expires_seconds: int | None = None
    file_id: str | None = None
