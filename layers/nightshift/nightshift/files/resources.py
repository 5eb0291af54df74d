"""Files and uploads as the API shows them."""

from typing import Any

from nightshift.files.create import PresignedFile
from nightshift.files.record import File, Upload


def file_object(file: File) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
        "status_details": None,
        "asset_group": file.asset_group,
    }


def presigned_file_object(presigned: PresignedFile) -> dict[str, Any]:
    """The file object of a file that has no bytes yet, with the URL and the headers of the PUT that uploads them."""
    upload = {
        "upload_url": presigned.url,
        "upload_headers": presigned.headers,
        "upload_expires_at": presigned.file.expires_at,
    }
    return file_object(presigned.file) | upload


def upload_object(upload: Upload, file: File | None = None) -> dict[str, Any]:
    """OpenAI's upload object; ``file`` is the file that a completed upload has become."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.size,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": file and file_object(file),
    }
