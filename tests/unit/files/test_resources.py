"""Files and uploads have every field, null when unset, in OpenAI's types."""

import msgspec
from msgspec.structs import replace
from nightshift.files.create import PresignedFile
from nightshift.files.record import File
from nightshift.files.record import Upload as UploadRecord
from nightshift.files.resources import file_object, presigned_file_object, upload_object
from openai.types import FileObject, Upload

FILE = File(account_id="acct_1", id="file_1", filename="a", purpose="batch", size=3, status="processed", created_at=1)
UPLOAD = UploadRecord(
    account_id="acct_1",
    id="upload_1",
    filename="a",
    purpose="batch",
    size=3,
    mime_type="text/plain",
    status="pending",
    created_at=1,
    expires_at=7,
)
FILE_OBJECT = {
    "id": "file_1",
    "object": "file",
    "bytes": 3,
    "created_at": 1,
    "expires_at": None,
    "filename": "a",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
    "asset_group": None,
}


def test_a_file_has_every_field() -> None:
    assert msgspec.to_builtins(file_object(FILE)) == FILE_OBJECT


def test_the_sdk_reads_a_file() -> None:
    file = msgspec.to_builtins(file_object(replace(FILE, expires_at=7)))
    assert FileObject.model_validate(file, strict=True).expires_at == 7


def test_a_presigned_file_has_its_url() -> None:
    presigned = PresignedFile(replace(FILE, expires_at=7), "https://s3", {"If-None-Match": "*"})
    file = msgspec.to_builtins(presigned_file_object(presigned))
    url = {"upload_url": "https://s3", "upload_headers": {"If-None-Match": "*"}, "upload_expires_at": 7}
    assert file == FILE_OBJECT | {"expires_at": 7} | url


def test_a_completed_upload_has_its_file() -> None:
    pending = msgspec.to_builtins(upload_object(UPLOAD))
    assert (pending["object"], pending["file"], "mime_type" in pending) == ("upload", None, False)
    completed = msgspec.to_builtins(upload_object(replace(UPLOAD, status="completed"), FILE))
    assert completed["file"] == FILE_OBJECT
    assert Upload.model_validate(completed, strict=True).status == "completed"
