"""An upload is completed once, by one request: its file is that request's, whole, and no other file stays."""

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from nightshift.core import bucket, concat
from nightshift.core.concat import ByteRange
from nightshift.core.errors import NightshiftError
from nightshift.files import store as files
from nightshift.files import uploads
from nightshift.files.create import NewFile

from tests.integration.support import Caller, object_keys

ONE, TWO = b'{"part": 1}\n', b'{"part": 2}\n'
NO_MD5 = "0" * 32
COMPLETED = (200, None)
OTHERS = (409, "upload_completed")
MISMATCH = (400, "upload_md5_mismatch")

Answer = tuple[int, str | None]


class Pending:
    """An upload of two parts. Its requests are answered with their status and error code, as the API does."""

    def __init__(self, caller: Caller) -> None:
        self._account = caller.account_id
        new = NewFile(filename="in.jsonl", purpose="batch")
        upload = uploads.create(self._account, new, size=len(ONE + TWO), mime_type="application/jsonl")
        self.id = upload.id
        self._parts = [uploads.add_part(upload, ONE), uploads.add_part(upload, TWO)]

    def complete(self, *, swapped: bool = False, md5: str | None = None) -> Answer:
        part_ids = self._parts[::-1] if swapped else self._parts
        return self._answer(lambda: uploads.complete(uploads.get(self._account, self.id), part_ids, md5))

    def cancel(self) -> Answer:
        return self._answer(lambda: uploads.cancel(uploads.get(self._account, self.id)))

    def complete_and_delete(self) -> Answer:
        self.complete()
        return self._answer(lambda: files.delete(self._account, self._file_ids()[0]))

    def contents(self) -> list[bytes]:
        """The bytes of every file that the account has."""
        return [files.read_range(self._account, file_id, 0, 1000) for file_id in self._file_ids()]

    def _file_ids(self) -> list[str]:
        listed, _ = files.list_page(self._account, limit=100, after=None, ascending=True, purpose=None)
        return [file.id for file in listed]

    @staticmethod
    def _answer(request: Callable[[], Any]) -> Answer:
        try:
            request()
        except NightshiftError as error:
            return error.status, error.code
        return COMPLETED


@pytest.fixture
def pending(alice: Caller) -> Pending:
    return Pending(alice)


Meanwhile = Callable[[Callable[[], Answer]], list[Answer]]


@pytest.fixture(params=["before", "after"])
def meanwhile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let another request run while the next one joins its parts: before it writes them, or after.

    Returns a list that will hold the other's answer.
    """
    join = concat.join

    def arrange(other: Callable[[], Answer]) -> list[Answer]:
        answers: list[Answer] = []

        def interrupted(pieces: list[ByteRange], target: str, digest: Any = None) -> int:
            monkeypatch.setattr(concat, "join", join)
            if request.param == "before":
                answers.append(other())
            size = join(pieces, target, digest)
            if request.param == "after":
                answers.append(other())
            return size

        monkeypatch.setattr(concat, "join", interrupted)
        return answers

    return arrange


def test_the_first_to_end_completes_the_upload(pending: Pending, meanwhile: Meanwhile) -> None:
    faster = meanwhile(pending.complete)
    assert pending.complete(swapped=True) == OTHERS
    assert faster == [COMPLETED]
    assert pending.contents() == [ONE + TWO]


def test_a_slow_request_with_a_wrong_md5_changes_nothing(pending: Pending, meanwhile: Meanwhile) -> None:
    faster = meanwhile(pending.complete)
    assert pending.complete(md5=NO_MD5) == MISMATCH
    assert faster == [COMPLETED]
    assert pending.contents() == [ONE + TWO]


def test_a_fast_request_with_a_wrong_md5_changes_nothing(pending: Pending, meanwhile: Meanwhile) -> None:
    wrong = meanwhile(lambda: pending.complete(md5=NO_MD5))
    assert pending.complete(md5=hashlib.md5(ONE + TWO, usedforsecurity=False).hexdigest().upper()) == COMPLETED
    assert wrong == [MISMATCH]
    assert pending.contents() == [ONE + TWO]


def test_a_repeated_wrong_md5_is_the_same_error(pending: Pending, meanwhile: Meanwhile) -> None:
    first = meanwhile(lambda: pending.complete(md5=NO_MD5))
    assert [pending.complete(md5=NO_MD5), *first] == [MISMATCH, MISMATCH]
    assert pending.contents() == []


def test_a_completed_upload_is_not_completed_otherwise(pending: Pending) -> None:
    assert pending.complete() == COMPLETED
    assert pending.complete(swapped=True) == OTHERS
    assert pending.complete(md5=NO_MD5) == OTHERS
    assert pending.complete() == COMPLETED
    assert pending.contents() == [ONE + TWO]


def test_a_repeated_request_has_the_same_file(pending: Pending, meanwhile: Meanwhile) -> None:
    """As of a client that did not wait for the first response."""
    first = meanwhile(pending.complete)
    assert [pending.complete(), *first] == [COMPLETED, COMPLETED]
    assert pending.contents() == [ONE + TWO]


def test_a_repeated_request_brings_no_deleted_file_back(pending: Pending, meanwhile: Meanwhile) -> None:
    meanwhile(pending.complete_and_delete)
    assert pending.complete() == (404, "file_not_found")
    assert pending.contents() == []


def test_no_bytes_stay_without_a_record(
    pending: Pending, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not those that are written after the file was deleted, and purged."""
    delete = files.delete

    def delete_and_purge(account_id: str, file_id: str) -> None:
        delete(account_id, file_id)
        files.purge(account_id, file_id)

    monkeypatch.setattr(files, "delete", delete_and_purge)
    meanwhile(pending.complete_and_delete)
    assert pending.complete() == (404, "file_not_found")
    assert object_keys("files/") == []


def test_an_upload_cancelled_midway_leaves_no_file(pending: Pending, meanwhile: Meanwhile) -> None:
    cancelled = meanwhile(pending.cancel)
    assert pending.complete() == (400, "upload_not_pending")
    assert cancelled == [COMPLETED]
    assert pending.contents() == []


def test_a_repeated_request_loses_as_the_first_does(pending: Pending, meanwhile: Meanwhile) -> None:
    def repeated() -> Answer:
        meanwhile(pending.complete)
        return pending.complete(swapped=True)

    first = meanwhile(repeated)
    assert [pending.complete(swapped=True), *first] == [OTHERS, OTHERS]
    assert pending.contents() == [ONE + TWO]


def test_a_killed_request_is_repeated(pending: Pending, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "put", killed)
        with pytest.raises(MemoryError):
            pending.complete()
    assert pending.complete() == COMPLETED
    assert pending.contents() == [ONE + TWO]


def test_parts_may_go_straight_to_the_bucket(alice: Caller) -> None:
    body = {"purpose": "batch", "filename": "in.jsonl", "bytes": len(ONE + TWO), "mime_type": "application/jsonl"}
    upload_id = alice("POST", "/uploads", json_body=body).json["id"]
    parts = [alice("POST", f"/uploads/{upload_id}/parts", json_body={"bytes": len(part)}).json for part in (ONE, TWO)]
    for part, content in zip(parts, (ONE, TWO), strict=True):
        assert part["upload_headers"]["Content-Length"] == str(len(content))
        key = urlsplit(part["upload_url"]).path.partition("uploads/")[2]
        bucket.put(f"uploads/{key}", content)
    ended = alice("POST", f"/uploads/{upload_id}/complete", json_body={"part_ids": [each["id"] for each in parts]}).json
    assert files.read_range(alice.account_id, ended["file"]["id"], 0, 1000) == ONE + TWO


def test_presigned_parts_have_the_bounds_of_the_others(alice: Caller) -> None:
    body = {"purpose": "batch", "filename": "in.jsonl", "bytes": 5, "mime_type": "application/jsonl"}
    upload_id = alice("POST", "/uploads", json_body=body).json["id"]
    path = f"/uploads/{upload_id}/parts"
    assert alice("POST", path, json_body={"bytes": 200_000_000}).error["code"] == "upload_bytes_mismatch"
    assert alice("POST", path, json_body={"bytes": 0}).status == 400
    alice("POST", f"/uploads/{upload_id}/cancel")
    assert alice("POST", path, json_body={"bytes": 5}).error["code"] == "upload_not_pending"
