"""Files and uploads as the API shows them. Every field is always there, null when unset."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class FileResource(Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
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
    purpose: Literal["batch"]
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileResource | None


class UploadPartResource(Struct, frozen=True, kw_only=True):
    """One part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def file_object(item: dict[str, Any]) -> FileResource:
    """A file as the API shows it, from its item."""
    return FileResource(**_file_fields(item))


def presigned_file_object(item: dict[str, Any], url: str, headers: dict[str, str]) -> PresignedFileResource:
    """A file that has no bytes yet, with the URL and the headers of the one PUT that uploads them."""
    return PresignedFileResource(
        **_file_fields(item), upload_url=url, upload_headers=headers, upload_expires_at=item["expires_at"]
    )


def _file_fields(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item["sk"],
        "bytes": item["bytes"],
        "created_at": item["created_at"],
        "expires_at": item.get("expires_at"),
        "filename": item["filename"],
        "purpose": item["purpose"],
        "status": item["status"],
        "asset_group": item.get("asset_group"),
    }


def upload_object(item: dict[str, Any], file: dict[str, Any] | None = None) -> UploadResource:
    """An upload as the API shows it; ``file`` is the item of the file that a completed upload became."""
    return UploadResource(
        id=item["sk"],
        bytes=item["bytes"],
        created_at=item["created_at"],
        expires_at=item["expires_at"],
        filename=item["filename"],
        purpose=item["purpose"],
        status=item["status"],
        file=file_object(file) if file else None,
    )
