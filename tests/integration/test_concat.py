"""Concatenation of objects by multipart upload, against moto."""

import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError
from nightshift.core import aws, concat, settings
from nightshift.core.concat import MIN_PART_BYTES, ByteRange


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects that S3 copies from."""
    keys: list[str] = []
    copy = aws.client("s3").upload_part_copy

    def noted(**named: Any) -> Any:
        keys.append(named["CopySource"]["Key"])
        return copy(**named)

    monkeypatch.setattr(aws.client("s3"), "upload_part_copy", noted)
    return keys


@pytest.mark.parametrize(
    ("sizes", "copies"),
    [
        ([10, 0, 20], 0),
        ([], 0),
        ([0], 0),
        ([MIN_PART_BYTES - 1, MIN_PART_BYTES - 1], 0),
        ([100, 2 * MIN_PART_BYTES + 5, 7], 1),
        ([2 * MIN_PART_BYTES, 2 * MIN_PART_BYTES], 2),
        ([1_000_000] * 13, 0),
    ],
)
def test_the_target_is_the_concatenation(copied: list[str], sizes: list[int], copies: int) -> None:
    s3, bucket = aws.client("s3"), settings.bucket()
    ranges, expected = [], b""
    for number, size in enumerate(sizes):
        content = bytes([number + 1]) * size
        s3.put_object(Bucket=bucket, Key=f"work/{number}", Body=b"head" + content + b"tail")
        ranges.append(ByteRange(f"work/{number}", 4, 4 + size))
        expected += content
    for _ in range(2):
        assert concat.join(ranges, "files/joined") == len(expected)
        found = s3.get_object(Bucket=bucket, Key="files/joined")
        assert found["ContentType"] == "application/jsonl"
        assert found["Body"].read() == expected
    assert len(copied) == 2 * copies
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("sizes", [[], [10, 0, 20], [2 * MIN_PART_BYTES, 7, 2 * MIN_PART_BYTES, 1_000_000, 5]])
def test_a_digest_gets_every_byte_in_order(copied: list[str], sizes: list[int]) -> None:
    s3, bucket = aws.client("s3"), settings.bucket()
    contents = [bytes([number]) * size for number, size in enumerate(sizes)]
    for number, content in enumerate(contents):
        s3.put_object(Bucket=bucket, Key=f"work/{number}", Body=content)
    ranges = [ByteRange(f"work/{number}", 0, size) for number, size in enumerate(sizes)]
    digest = hashlib.sha256()
    assert concat.join(ranges, "files/joined", digest) == sum(sizes)
    assert s3.get_object(Bucket=bucket, Key="files/joined")["Body"].read() == b"".join(contents)
    assert digest.digest() == hashlib.sha256(b"".join(contents)).digest()
    assert not copied


def test_resume_uploads_only_the_missing_parts(copied: list[str]) -> None:
    s3, bucket = aws.client("s3"), settings.bucket()
    contents = [bytes([number]) * (MIN_PART_BYTES + number) for number in range(6)]
    for number, content in enumerate(contents[:5]):
        s3.put_object(Bucket=bucket, Key=f"work/{number}", Body=content)
    ranges = [ByteRange(f"work/{number}", 0, len(content)) for number, content in enumerate(contents)]
    with pytest.raises(ClientError):
        concat.resume(ranges, "files/joined")  # the last object does not exist
    assert copied == ["work/0", "work/1", "work/2", "work/3", "work/4", "work/5"]
    s3.put_object(Bucket=bucket, Key="work/5", Body=contents[5])
    assert concat.resume(ranges, "files/joined") == sum(map(len, contents))
    assert copied[6:] == ["work/5"]
    assert s3.get_object(Bucket=bucket, Key="files/joined")["Body"].read() == b"".join(contents)
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_join_ignores_an_interrupted_upload() -> None:
    """The parts of an upload have equal sizes, and the next call may name them in another order."""
    s3, bucket = aws.client("s3"), settings.bucket()
    for name in "ab":
        s3.put_object(Bucket=bucket, Key=f"work/{name}", Body=name.encode() * MIN_PART_BYTES)
    left = s3.create_multipart_upload(Bucket=bucket, Key="files/joined")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="files/joined", UploadId=left, PartNumber=1, Body=b"a" * MIN_PART_BYTES)
    concat.join([ByteRange(f"work/{name}", 0, MIN_PART_BYTES) for name in "ba"], "files/joined")
    content = s3.get_object(Bucket=bucket, Key="files/joined")["Body"].read()
    assert content == b"b" * MIN_PART_BYTES + b"a" * MIN_PART_BYTES


def test_resume_ignores_parts_of_other_sizes(copied: list[str]) -> None:
    s3, bucket = aws.client("s3"), settings.bucket()
    contents = [bytes([number]) * (MIN_PART_BYTES + number) for number in range(3)]
    for number, content in enumerate(contents):
        s3.put_object(Bucket=bucket, Key=f"work/{number}", Body=content)
    for key, length in (("files/joined", 1), ("files/joined-not", 0)):
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        for number in (1, 2, 3):
            body = b"x" * (MIN_PART_BYTES + number - 1 + (length if number == 1 else 0))
            s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
    ranges = [ByteRange(f"work/{number}", 0, len(content)) for number, content in enumerate(contents)]
    concat.resume(ranges, "files/joined")
    assert copied == ["work/0", "work/1", "work/2"]
    assert s3.get_object(Bucket=bucket, Key="files/joined")["Body"].read() == b"".join(contents)
