"""S3's URLs have the bucket in the host or in the path, by the stack's setting."""

from collections.abc import Iterator

import pytest
from nightshift.core import aws


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-2")
    aws._client.cache_clear()
    yield
    aws._client.cache_clear()


def presigned_url() -> str:
    url: str = aws.client("s3").generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    return url.partition("?")[0]


def test_the_bucket_is_in_the_host_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S3_ADDRESSING_STYLE", raising=False)
    assert presigned_url() == "https://bucket.s3.eu-central-2.amazonaws.com/key"


def test_the_bucket_can_be_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "path")
    assert presigned_url() == "https://s3.eu-central-2.amazonaws.com/bucket/key"
