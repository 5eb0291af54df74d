"""An emulated AWS in its own process while a benchmark runs: S3 only, or everything that the API calls."""

import os
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from nightshift.core import aws

from local.processes import free_port
from local.settings import ROOT_CREDENTIALS, emulator_python
from tests.integration.support import template_tables

_NOTHING = '{"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}'


@contextmanager
def emulated_s3(*more: str) -> Iterator[str]:
    """Start ministack on loopback with S3 and the services ``more``, create the bucket, and point the package at them.

    Yields the endpoint.
    """
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": ",".join(("s3", *more)),
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "ERROR",
        }
        process = subprocess.Popen(
            [str(emulator_python()), "-m", "ministack"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=2).read()
                    break
                except OSError:
                    time.sleep(0.05)
            os.environ.update(
                {
                    **ROOT_CREDENTIALS,
                    "AWS_ENDPOINT_URL": endpoint,
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "BUCKET": "bench",
                    "S3_ADDRESSING_STYLE": "path",
                }
            )
            aws._client.cache_clear()
            aws.client("s3").create_bucket(Bucket="bench")
            yield endpoint
        finally:
            process.kill()
            process.wait()


@contextmanager
def emulated_aws() -> Iterator[str]:
    """``emulated_s3`` with the template's tables and a state machine that does nothing."""
    with emulated_s3("dynamodb", "stepfunctions") as endpoint:
        for name, definition in template_tables().items():
            aws.client("dynamodb").create_table(TableName=name, **definition)
            os.environ[f"{re.sub('(?<=[a-z])(?=[A-Z])', '_', name).upper()}_TABLE"] = name
        machine = aws.client("stepfunctions").create_state_machine(
            name="run-batch", definition=_NOTHING, roleArn="arn:aws:iam::000000000000:role/run-batch"
        )
        os.environ |= {
            "STATE_MACHINE": machine["stateMachineArn"],
            "SYNC_VALIDATION_SECONDS": "20",
        }
        yield endpoint
