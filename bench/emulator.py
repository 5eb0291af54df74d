"""An emulated S3 with one bucket, in a process of its own, for as long as a benchmark runs."""

import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from nightshift import aws

from local.stack import ROOT_CREDENTIALS, emulator_python, free_port


@contextmanager
def emulated_s3() -> Iterator[str]:
    """Start ministack on loopback, make the bucket, and point the package at them; gives the endpoint."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": "s3",
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
                {**ROOT_CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1", "BUCKET": "bench"}
            )
            aws._client.cache_clear()
            aws.client("s3").create_bucket(Bucket="bench")
            yield endpoint
        finally:
            process.kill()
            process.wait()
