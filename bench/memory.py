"""How much memory each function needs for the largest legal batches, against its MemorySize in the template.

The whole system runs on its own local stack, whose upstream speaks TLS, as providers do. The peak of a function is the
high-water mark of the resident set of its processes. Every variant starts with new processes. The open files of
RunChunk are counted, too, because each request in flight is one.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from nightshift.input.layout import WORKER_CONCURRENCY
from nightshift.routes import store as routes
from nightshift.routes.endpoint import DEFAULT, EndpointPath
from openai.types import Batch

from bench import report
from bench.meter import executions
from bench.stack import FUNCTIONS, configured, empty, input_file, stack, upload
from bench.tls import certificate
from local.processes import workers
from tests.e2e.conftest import ENDED, Local, wait_for

MB = 1024 * 1024
# The highest share of its MemorySize that a function should use.
WANTED = 0.8
# docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html: file descriptors.
LAMBDA_FILES = 1024


@dataclass
class Variant:
    name: str
    lines: int
    line_bytes: int
    upstream: dict[str, Any] = field(default_factory=dict)
    sync: bool = True
    during: Callable[[Local, Batch], None] = lambda *_: None
    after: Callable[[Local, Batch], None] = lambda *_: None
    ends: str = "completed"
    endpoint: EndpointPath = DEFAULT
    body: dict[str, Any] = field(default_factory=dict)


def abort(local: Local, batch: Batch) -> None:
    """Stop the execution once its worker is busy, so that CloseAbandoned ends the batch."""
    wait_for(lambda: local.upstream.counters()["requests"])
    local.aws("stepfunctions").stop_execution(executionArn=executions(local, batch.id)[0]["executionArn"])


def kill_the_worker(local: Local, _: Batch) -> None:
    """Kill RunChunk after it has saved answers, so that another worker starts from them."""
    wait_for(lambda: local.upstream.counters()["by_status"].get("200", 0) > 40)
    time.sleep(3)
    for pid, function in workers(local.folder):
        if function == "RunChunk":
            os.kill(pid, signal.SIGKILL)


def retry(local: Local, batch: Batch) -> None:
    """Retry the batch's failed lines, and stop when they are planned."""
    started = time.monotonic()
    again = local.client.post(f"/batches/{batch.id}/retry", cast_to=Batch)
    print(f"  retry: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
    wait_for(lambda: local.client.batches.retrieve(again.id).status == "in_progress", 300)
    local.client.batches.cancel(again.id)
    wait_for(lambda: local.client.batches.retrieve(again.id).status in ENDED, 300)


VARIANTS = [
    Variant("50,000 lines of 4 KB", 50_000, 4_180),
    Variant(
        "50,000 lines of 4 KB, validated later, answers of 20 KB", 50_000, 4_180, {"answer_bytes": 20_000}, sync=False
    ),
    Variant("190 lines of 1 MB", 190, MB),
    Variant("190 lines of 1 MB, validated later, answers of 1 MB", 190, MB, {"answer_bytes": MB}, sync=False),
    Variant(
        "190 lines of 1 MB, answers of 1 MB, a worker killed",
        190,
        MB,
        {"answer_bytes": MB, "latency_ms": 2500, "jitter_ms": 2400},
        during=kill_the_worker,
    ),
    Variant("12 lines of 16 MB", 12, 16 * MB - 4096, {"latency_ms": 3000}),
    Variant("12 lines of 16 MB, validated later", 12, 16 * MB - 4096, {"latency_ms": 3000}, sync=False),
    Variant("50,000 lines of 4 KB, aborted", 50_000, 4_180, {"latency_ms": 30_000}, during=abort),
    Variant("80 lines, answers of 7 MB", 80, 1000, {"answer_bytes": 7 * MB}),
    Variant("1,050 lines, answers of 1 MB", 1_050, 600, {"answer_bytes": MB}),
    Variant("10,000 lines, answers of 40 KB", 10_000, 1000, {"answer_bytes": 40_000}),
    Variant("50,000 lines of 4 KB, all refused and retried", 50_000, 4_180, {"error_rate": {"400": 1}}, after=retry),
    Variant(
        "50,000 embeddings of 1,536 floats",
        50_000,
        300,
        endpoint="/v1/embeddings",
        body={"dimensions": 1536},
    ),
    Variant(
        "200 lines, 200 embeddings of 1,536 floats each",
        200,
        300,
        endpoint="/v1/embeddings",
        body={"dimensions": 1536, "input": ["The night shift answers."] * 200},
    ),
]


class Watch(threading.Thread):
    """Records each function's highest peak, and the most files it had open, until it is stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.peaks: defaultdict[str, int] = defaultdict(int)
        self.files: defaultdict[str, int] = defaultdict(int)
        self._folder = folder
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            self.measure()

    def measure(self) -> None:
        for pid, function in workers(self._folder):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                self.files[function] = max(self.files[function], len(os.listdir(f"/proc/{pid}/fd")))
            except OSError:
                continue  # the process has ended
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    self.peaks[function] = max(self.peaks[function], int(line.split()[1]) * 1024)

    def stop(self) -> None:
        self.measure()
        self._stopped.set()
        self.join()


def run(local: Local, variant: Variant) -> Watch:
    """Run one batch. Returns what each function that took part has used at most."""
    for pid, _ in workers(local.folder):
        os.kill(pid, signal.SIGKILL)
    local.upstream.reset()
    local.upstream.set(**variant.upstream)
    watch = Watch(local.folder)
    watch.start()
    content = input_file(variant.lines, variant.line_bytes, endpoint=variant.endpoint, **variant.body)
    file_id = upload(local, content)
    with local.environment("CreateBatch", **({} if variant.sync else {"SYNC_VALIDATION_SECONDS": "0"})):
        batch = local.client.batches.create(input_file_id=file_id, endpoint=variant.endpoint, completion_window="24h")
    wait_for(lambda: local.client.batches.retrieve(batch.id).status != "validating", 120)
    variant.during(local, batch)

    def ended() -> Batch | None:
        found = local.client.batches.retrieve(batch.id)
        return found if found.status in ENDED else None

    started = time.monotonic()
    batch = wait_for(ended, 900)
    assert batch.status == variant.ends
    assert batch.request_counts is not None
    assert batch.request_counts.completed + batch.request_counts.failed == variant.lines
    print(f"  {variant.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    variant.after(local, batch)
    watch.stop()
    empty(local)
    return watch


def main() -> None:
    chosen = [variant for variant in VARIANTS if not sys.argv[1:] or any(word in variant.name for word in sys.argv[1:])]
    rows: list[dict[str, Any]] = []
    highest: defaultdict[str, float] = defaultdict(float)
    files = 0
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder,
        stack("memory", NIGHTSHIFT_UPSTREAM_CERTIFICATE=str(certificate(Path(folder)))) as local,
        local.environment("RunChunk", SSL_CERT_FILE=f"{folder}/trusted.pem"),
    ):
        # As many in flight as a worker may have.
        routes.apply([replace(route, max_concurrency=WORKER_CONCURRENCY) for route in routes.all_routes()])
        sizes = {name: int(found["MemorySize"]) for name, found in configured(local).items()}
        for variant in chosen:
            watch = run(local, variant)
            files = max(files, watch.files["RunChunk"])
            for name, peak in watch.peaks.items():
                rows.append(report.row(f"{variant.name}: {name}", [peak / MB], "MB", [sizes[name]]))
                highest[name] = max(highest[name], peak / MB / sizes[name])
    targets = [
        report.target(f"{name}: peak, of its {sizes[name]} MB", highest[name], WANTED, at_least=False)
        for name in FUNCTIONS
        if name in highest
    ]
    rows.append(report.row("RunChunk: open files", [files], "", [LAMBDA_FILES]))
    targets.append(report.target(f"RunChunk: open files, of {LAMBDA_FILES}", files / LAMBDA_FILES, 1, at_least=False))
    report.publish("memory", rows, targets, report.versions("aiohttp", "boto3", "msgspec"))


if __name__ == "__main__":
    main()
