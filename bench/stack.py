"""The whole system on its own local stack while a benchmark runs."""

import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nightshift.routes.endpoint import DEFAULT, ENDPOINTS, EndpointPath

from local.processes import free_port
from local.settings import ROOT, STACK_NAME
from local.stack import Stack
from tests.e2e.conftest import Local

FUNCTIONS = (
    *("Api", "CreateBatch", "ValidateBatch", "RunChunk", "FinalizeBatch", "CloseAbandoned"),
    *("PublishEvents", "DeliverWebhook", "PurgeFile", "Sweep"),
)
_TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def stack(name: str, **environment: str) -> Iterator[Local]:
    """A stack with its own folder and port. ``environment`` is that of ``python -m local.stack up``."""
    folder = ROOT / ".local" / f"bench-{name}"
    os.environ |= {"NIGHTSHIFT_PORT": str(free_port()), **environment}
    started = Stack(folder)
    try:
        yield Local(folder, started.up())
    finally:
        # Killed, so that the emulator does not spend time on saving its state.
        if description := started.read():
            os.kill(description["pids"]["emulator"], signal.SIGKILL)
        started.down()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process so far, with all its threads; zero if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def configured(local: Local) -> dict[str, dict[str, Any]]:
    """The configuration of each function, by its logical id."""
    functions = local.aws("lambda").list_functions()["Functions"]
    return {
        name: found
        for name in FUNCTIONS
        for found in functions
        if found["FunctionName"].startswith(f"{STACK_NAME}-{name}-")
    }


def input_file(
    lines: int, line_bytes: int, model: str = "demo-model", *, endpoint: EndpointPath = DEFAULT, **body: Any
) -> bytes:
    """An input file of ``lines`` lines with about ``line_bytes`` bytes each; with ``body`` in each body."""

    def line(number: int, text: str) -> str:
        prompt = [{"role": "user", "content": text}] if endpoint == DEFAULT else text
        filled = {"model": model, ENDPOINTS[endpoint].prompt: prompt, **body}
        request = {"custom_id": f"r{number:05d}", "method": "POST", "url": endpoint, "body": filled}
        return json.dumps(request) + "\n"

    text = "The night shift answers. " * (line_bytes // 25)
    text = text[: line_bytes - len(line(0, ""))]
    return "".join(line(number, text) for number in range(lines)).encode()


def upload(local: Local, content: bytes) -> str:
    """Upload by one presigned PUT to S3 (docs/contract.md). Returns the file's id."""
    wanted = {"purpose": "batch", "filename": "input.jsonl", "bytes": len(content)}
    file = local.client.post("/files", cast_to=dict[str, Any], body=wanted)
    request = urllib.request.Request(file["upload_url"], content, dict(file["upload_headers"]), method="PUT")
    with urllib.request.urlopen(request, timeout=120):
        return str(file["id"])


def empty(local: Local) -> None:
    """Delete the objects of batches, because they would fill the disk."""
    s3 = local.aws("s3")
    for name in [found["Name"] for found in s3.list_buckets()["Buckets"]]:
        for prefix in ("files/", "work/"):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix):
                for found in page.get("Contents", []):
                    s3.delete_object(Bucket=name, Key=found["Key"])
