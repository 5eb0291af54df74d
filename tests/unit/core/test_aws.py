"""S3's URLs have the bucket in the host or in the path, by the stack's setting; clients are as botocore makes them."""

from collections.abc import Iterator
from typing import Any

import botocore.session
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


@pytest.mark.parametrize("service", [*aws.SERVICES, "sts", "sso", "sso-oidc"])
def test_clients_have_botocores_endpoints(service: str) -> None:
    plain: Any = botocore.session.get_session()
    ours = aws._session()
    partitions = plain.get_available_partitions()
    regions = [region for partition in partitions for region in plain.get_available_regions("sqs", partition)[:1]]
    for region in [*regions, "us-east-1", "eu-north-9"]:  # the last one may open some day
        expected, made = (session.create_client(service, region_name=region).meta for session in (plain, ours))
        assert (made.endpoint_url, made.partition) == (expected.endpoint_url, expected.partition)
        assert made.config.signature_version == expected.config.signature_version
        assert made.config.s3 == expected.config.s3


def test_the_list_of_regions_is_ours() -> None:
    assert all(len(partition["services"]) <= 10 for partition in aws._session().get_data("endpoints")["partitions"])
