"""purge_file: bytes whose record never came are deleted, and no others."""

import time
from typing import Any

from nightshift.core import aws, bucket, settings
from nightshift.core.ids import new_id
from nightshift.files import store as files

from tests.integration.support import Caller, invoke, object_keys, sample

DAY = 24 * 3600


def look() -> dict[str, Any]:
    return invoke("purge_file", sample("sweep"))  # a scheduled event


def put_bytes(account_id: str, age: float) -> str:
    file_id = new_id("file", time.time() - age)
    bucket.put(files.key(account_id, file_id), b"{}")
    return file_id


def test_bytes_without_a_record_are_deleted_after_a_day(alice: Caller) -> None:
    put_bytes(alice.account_id, 1.5 * DAY)
    put_bytes("acct_gone", 3 * DAY)
    kept = put_bytes(alice.account_id, 0.5 * DAY)
    recorded = put_bytes(alice.account_id, 2 * DAY)
    created_at = int(time.time())
    files.record(
        alice.account_id, recorded, filename="a", purpose="batch", size=2, created_at=created_at, expires_at=None
    )
    assert look() == {"batchItemFailures": []}
    assert sorted(object_keys("files/")) == sorted(files.key(alice.account_id, each) for each in (kept, recorded))
    assert look() == {"batchItemFailures": []}


def test_without_files_nothing_is_found(alice: Caller) -> None:
    assert look() == {"batchItemFailures": []}


def test_no_version_of_a_deleted_file_is_left(alice: Caller) -> None:
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=settings.bucket(), VersioningConfiguration={"Status": "Enabled"})
    file_id, other = (alice.upload(b"{}") for _ in range(2))
    key = files.key(alice.account_id, file_id)
    bucket.put(key, b"overwritten")
    bucket.delete(key)
    alice("DELETE", f"/files/{file_id}")
    files.purge(alice.account_id, file_id)
    found = s3.list_object_versions(Bucket=settings.bucket(), Prefix="files/")
    assert [version["Key"] for version in found["Versions"]] == [files.key(alice.account_id, other)]
    assert "DeleteMarkers" not in found


def test_a_purge_counts_objects_and_not_their_versions(alice: Caller) -> None:
    aws.client("s3").put_bucket_versioning(Bucket=settings.bucket(), VersioningConfiguration={"Status": "Enabled"})
    file_id = alice.upload(b"{}")
    bucket.put(files.key(alice.account_id, file_id), b"again")
    alice.upload(b"{}")
    assert bucket.erase(f"files/{alice.account_id}/") == 2
    assert bucket.erase(f"files/{alice.account_id}/") == 0
