"""Files and uploads as the API shows them. Every field is always there, null when unset."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from nightshift.files.create import PresignedFile
from nightshift.files.record import File, Purpose, Upload


class FileResource(Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed"]
    status_details: None = None
    asset_group: str | None


class PresignedFileResource(FileResource, frozen=True, kw_only=True):
    """A file whose bytes the caller puts into S3 with a presigned URL."""

    upload_url: Annotated[str, Meta(description="Takes one PUT of exactly `bytes` bytes.")]
    upload_headers: Annotated[dict[str, str], Meta(description="Headers that the PUT has to carry.")]
    upload_expires_at: int


class FileDeletedResource(Struct, frozen=True, kw_only=True):
    """What is left of a file that was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Annotated[bool, Meta(extra_json_schema={"const": True})] = True


class UploadResource(Struct, frozen=True, kw_only=True):
    """A file that arrives in parts. ``file`` is null until the upload is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Purpose
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileResource | None


class UploadPartResource(Struct, frozen=True, kw_only=True):
    """One part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class PresignedPartResource(UploadPartResource, frozen=True, kw_only=True):
    """A part whose bytes the caller puts into S3 with a presigned URL, within the upload's time."""

    upload_url: Annotated[str, Meta(description="Takes one PUT of exactly `bytes` bytes.")]
    upload_headers: Annotated[dict[str, str], Meta(description="Headers that the PUT has to carry.")]


def file_object(file: File) -> FileResource:
    """A file as the API shows it."""
    return FileResource(
        id=file.id,
        bytes=file.size,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=file.purpose,
        status=file.status,
        asset_group=file.asset_group,
    )


def presigned_file_object(presigned: PresignedFile) -> PresignedFileResource:
    """A file that has no bytes yet, with the URL and the headers of the one PUT that uploads them."""
    file = presigned.file
    return PresignedFileResource(
        **msgspec.structs.asdict(file_object(file)),
        upload_url=presigned.url,
        upload_headers=presigned.headers,
        upload_expires_at=file.expires_at or file.created_at,
    )


def upload_object(upload: Upload, file: File | None = None) -> UploadResource:
    """An upload as the API shows it; ``file`` is the file that a completed upload has become."""
    return UploadResource(
        id=upload.id,
        bytes=upload.size,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status,
        file=file_object(file) if file else None,
    )
