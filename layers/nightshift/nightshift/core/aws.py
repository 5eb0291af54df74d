"""AWS clients, and reads of S3 objects.

A client is created at its first use, because importing botocore is the slowest part of a cold start. boto3 is not
imported at all: nothing here needs its resources and transfers, and they would take more time.
"""

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from nightshift.core import settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient


@overload
def client(service: Literal["dynamodb"]) -> "DynamoDBClient": ...
@overload
def client(service: Literal["s3"]) -> "S3Client": ...
@overload
def client(service: Literal["sqs"]) -> "SQSClient": ...
@overload
def client(service: Literal["events"]) -> "EventBridgeClient": ...
@overload
def client(service: Literal["stepfunctions"]) -> "SFNClient": ...
@overload
def client(service: Literal["lambda"]) -> "LambdaClient": ...
@overload
def client(service: Literal["secretsmanager"]) -> "SecretsManagerClient": ...
def client(service: str) -> Any:
    """The process's one client for ``service``; safe to use from several threads."""
    return _client(service)


@cache
def _client(service: str) -> Any:
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=32,
        # A presigned URL works in every region only with this signature, and with bucket and region in its host.
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": settings.s3_addressing_style()},
    )
    return _session().create_client(service, config=config)


# What botocore reads in place of its own data: ``tools/endpoints.py`` writes it.
DATA = Path(__file__).with_name("aws_data")
SERVICES = ("dynamodb", "s3", "sqs", "events", "stepfunctions", "lambda", "secretsmanager")


@cache
def _session() -> Any:
    """A session that reads botocore's service descriptions with msgspec, which takes half the time."""
    import gzip

    import botocore.loaders
    import botocore.session
    import msgspec

    class Files(botocore.loaders.JSONFileLoader):
        def load_file(self, file_path: str) -> Any:
            for ending, open_file in ((".json", open), (".json.gz", gzip.open)):
                try:
                    with open_file(file_path + ending, "rb") as file:
                        return msgspec.json.decode(file.read())
                except FileNotFoundError:
                    continue
            return super().load_file(file_path)

    class Loader(botocore.loaders.Loader):
        def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 (botocore's signature)
            # botocore would search the folders of all its 400 services. The last four serve an operator's credentials.
            return [*SERVICES, "sts", "sso", "sso-oidc", "signin"]

    session = botocore.session.get_session()
    session.register_component("data_loader", Loader(extra_search_paths=[str(DATA)], file_loader=Files()))
    return session


def read_object(bucket: str, key: str, start: int = 0, end: int | None = None) -> bytes:
    """Bytes ``start`` to ``end`` (not included) of an object; without ``end``, to the end of the object.

    A connection that breaks during the read is tried again, because botocore does not do that.

    Raises:
        botocore.exceptions.ClientError: such as ``NoSuchKey``.
    """
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    span: Any = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
    for pause in (0.5, 2.0):
        try:
            return client("s3").get_object(Bucket=bucket, Key=key, **span)["Body"].read()
        except (HTTPClientError, IncompleteReadError):
            time.sleep(pause)
    return client("s3").get_object(Bucket=bucket, Key=key, **span)["Body"].read()


def error_code(error: Exception) -> str:
    """The AWS error code of a botocore ``ClientError``; empty for any other error."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
