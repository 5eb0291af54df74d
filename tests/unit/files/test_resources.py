"""Files as the API shows them."""

from msgspec.structs import replace
from nightshift.files.record import File
from nightshift.files.resources import file_object
from openai.types import FileObject

FILE = File(account_id="acct_1", id="file_1", filename="a", purpose="batch", size=3, status="processed", created_at=1)


def test_a_file_has_every_field() -> None:
    assert file_object(FILE) == {
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


def test_the_sdk_reads_a_file() -> None:
    assert FileObject.model_validate(file_object(replace(FILE, expires_at=7)), strict=True).expires_at == 7
