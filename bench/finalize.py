"""How fast the results are joined, against a bare copy of the same bytes, and how much memory that takes.

Ours is the whole handler of `functions/finalize_batch`: it reads every seal, joins both files in order, sums counts and
usage, records the files, and writes the terminal status. The peers copy the same sealed objects in order by multipart
upload, and have the list of what to copy. They use the same emulated S3, which runs in its own process: with one
thread, with as many threads as ours, and with copies by S3 where a part has the required 5 MiB.

One answer in fifty has failed. Segments of short and middling answers are too small for S3 to copy; segments of long
answers are not.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned, RequestCounts
from nightshift.core import aws, settings
from nightshift.core.concat import MIN_PART_BYTES, ByteRange, plan_parts
from nightshift.core.log import logger
from nightshift.core.table import Table
from nightshift.input import layout, plan
from nightshift.input.plan import Task
from nightshift.results import store as results
from nightshift.results.line import answered_line
from nightshift.results.usage import Usage
from nightshift.routes.endpoint import DEFAULT
from nightshift.routes.route import Route, Sku

from bench import report
from bench.emulator import emulated_aws
from bench.tls import memory
from tests.integration.support import invoke

FAILED = 50  # one answer in 50 has failed
# How many answers, and how many bytes each has.
KINDS = {
    "short": (50_000, 1_400),
    "half as many middling": (20_000, 4_900),
    "middling": (40_000, 4_900),
    "long": (25_000, 8_000),
}
FLAT = ("half as many middling", "middling")  # the peak of both should be the same
THREADS = 16
ACCOUNT = "acct_bench"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch whose segments are all sealed, with the byte ranges of its output file and of its error file."""

    batch_id: str
    lines: int
    output: list[ByteRange]
    error: list[ByteRange]

    @property
    def megabytes(self) -> float:
        return sum(piece.size for piece in self.output + self.error) / 1e6


def seal(kind: str) -> Sealed:
    count, answer_bytes = KINDS[kind]
    sealed = Sealed(f"batch_{kind.replace(' ', '_')}", count, [], [])
    ends = range(1, count + 1)
    segments = layout.segments(ends)
    plan.write(sealed.batch_id, [Task(ACCOUNT, sealed.batch_id, 0, segments)])
    body = json.dumps({"object": "chat.completion", "choices": "x" * (answer_bytes - 180)}).encode()
    for segment in segments:
        numbers = range(segment.first_line, segment.first_line + segment.lines)
        lines = [
            answered_line(
                sealed.batch_id, n, f"r{n}", 200 if n % FAILED else 400, f"req_{n}", body, Usage(20, 0, 150, 0, 170)
            )
            for n in numbers
        ]
        output, error = results.byte_ranges(
            sealed.batch_id, segment, results.write_seal(sealed.batch_id, segment, lines)
        )
        sealed.output.extend(output)
        sealed.error.extend(error)
    return sealed


def ours(batch_id: str, lines: int) -> float:
    """Finalize the batch as if for the first time. Returns seconds."""
    now = int(time.time())
    route = Route(model="m", provider="p", base_url="https://up.test/v1", upstream_model="m", sku=Sku("s"))
    batch = Batch(
        account_id=ACCOUNT,
        id=batch_id,
        status="in_progress",
        input_file_id="file",
        endpoint=DEFAULT,
        completion_window="24h",
        created_at=now,
        expires_at=now + 86_400,
        plan=Planned("m", lines, 1, route),
    )
    table = Table("batches")
    table.delete_all([(ACCOUNT, batch_id), *((batch_id, item["sk"]) for item in table.query("#pk = :pk", pk=batch_id))])
    batches.put(batch)
    done = {"state": "done", "wait_seconds": 0, "events": 0}
    told = {
        "account_id": ACCOUNT,
        "batch_id": batch_id,
        "execution": 0,
        "failures": 0,
        "only_chunk": done,
        "chunks": [],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # metrics are printed
        started = time.perf_counter()
        answer = invoke("finalize_batch", told)
        took = time.perf_counter() - started
    assert answer["status"] == "completed"
    failed = lines // FAILED
    counts = batches.get(ACCOUNT, batch_id).request_counts
    assert counts == RequestCounts(lines, lines - failed, failed)
    return took


def bare_copy(sealed: Sealed, threads: int, by_s3: bool = False) -> float:
    """Copy the same bytes into two objects. Returns seconds."""
    s3, bucket = aws.client("s3"), settings.bucket()

    def send(upload: dict[str, Any], number: int, group: list[ByteRange]) -> dict[str, Any]:
        part: Any = upload | {"PartNumber": number}
        spans = [f"bytes={piece.start}-{piece.end - 1}" for piece in group]
        if by_s3 and len(group) == 1 and group[0].size >= MIN_PART_BYTES:
            part |= {"CopySource": {"Bucket": bucket, "Key": group[0].key}, "CopySourceRange": spans[0]}
            copied = s3.upload_part_copy(**part)
            return {"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]}
        found = [
            s3.get_object(Bucket=bucket, Key=piece.key, Range=span) for piece, span in zip(group, spans, strict=True)
        ]
        content = b"".join(each["Body"].read() for each in found)
        return {"PartNumber": number, "ETag": s3.upload_part(**part, Body=content)["ETag"]}

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for name, pieces in (("output", sealed.output), ("error", sealed.error)):
            whole: Any = {"Bucket": bucket, "Key": f"copy/{name}"}
            upload = whole | {"UploadId": s3.create_multipart_upload(**whole)["UploadId"]}
            groups = plan_parts(pieces)
            sent: Any = list(pool.map(partial(send, upload), range(1, len(groups) + 1), groups))
            s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})
    return time.perf_counter() - started


def peak(sealed: Sealed) -> float:
    """The peak in MB of a new process that finalizes the batch."""
    command = [sys.executable, "-m", "bench.finalize", "--memory", sealed.batch_id, str(sealed.lines)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two runs of each")
    parser.add_argument("--memory", help=argparse.SUPPRESS, nargs=2, metavar=("BATCH", "LINES"))
    given = parser.parse_args()
    logger.setLevel("ERROR")
    if given.memory:
        ours(given.memory[0], int(given.memory[1]))
        print(memory("VmHWM"))
        return
    times = 2 if given.quick else 3
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    with emulated_aws():
        peaks: dict[str, Callable[[], float]] = {}
        for kind in KINDS:
            sealed = seal(kind)
            size = sealed.megabytes
            of = f"{kind} answers, {size:.0f} MB"

            if kind in FLAT:
                peaks[kind] = partial(peak, sealed)
            if kind == FLAT[0]:
                continue  # measured for its memory only

            def rate(run: Callable[[], float], size: float = size) -> float:
                return size / run()

            peers = {
                f"{of}: bare copy, one thread": partial(rate, partial(bare_copy, sealed, 1)),
                f"{of}: bare copy, {THREADS} threads": partial(rate, partial(bare_copy, sealed, THREADS)),
            }
            if kind == "long":
                peers[f"{of}: copied by S3"] = partial(rate, partial(bare_copy, sealed, THREADS, by_s3=True))
            mine = f"{of}: finalize_batch, whole"
            figures = report.repeat(peers | {mine: partial(rate, partial(ours, sealed.batch_id, sealed.lines))}, times)
            best = max((figures[name] for name in peers if "bare" in name), key=median)
            rows += [report.row(name, each, "MB/s", best) for name, each in figures.items()]
            targets.append(report.target(f"{of}: of the faster bare copy", median(figures[mine]) / median(best), 0.7))
        memories = report.repeat(peaks, times)
    few, many = (memories[kind] for kind in FLAT)
    rows += [report.row(f"peak, {kind} answers", each, "MB", few) for kind, each in memories.items()]
    growth = median(many) - median(few)
    targets.append(report.target("peak: MB more for twice as many answers", growth, 16, at_least=False))
    report.publish("finalize", rows, targets, report.versions("botocore", "msgspec"))


if __name__ == "__main__":
    main()
