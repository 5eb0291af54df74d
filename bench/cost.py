"""What a million lines cost: what a batch of 50,000 lines uses of AWS, counted in a real run, at list prices.

The run is the whole system on a local stack, over TLS, with as many requests in flight as a full worker has. Answers
take half a second, because ten seconds would take nine minutes (`--long` does that). ``at_latency`` then computes
what depends on the time for ten seconds a line. Everything else is priced as counted.

The seconds of the functions are measured on a whole core of this machine. With a share of a core, a function needs so
much longer for its CPU time. The rest of its time it waits for the emulator, on loopback.
"""

import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift.engine.slice import LIMITS
from nightshift.input import layout
from nightshift.routes import store as routes
from nightshift.routes.route import Route, Sku

from bench import report, stub
from bench.meter import Meter, Usage, executions, metered
from bench.stack import configured, empty, input_file, stack, upload
from bench.tls import certificate
from local.settings import SECRET
from tests.e2e.conftest import Local, wait_for

LINES = 50_000
LINE_BYTES = 600
SECONDS_PER_LINE = 10.0
SHORT_MS = 500.0
MODEL = "bench-model"
INVOCATION_SECONDS = 900
# The memory with which Lambda gives one vCPU.
WHOLE_CORE_GB = 1769 / 1024
# How often a caller polls the batch.
POLL_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Price:
    dollars: float
    per: float
    source: str

    def of(self, amount: float) -> float:
        return amount * self.dollars / self.per


# List prices of us-east-1 without any free tier, as of November 2025.
PRICES = {
    "lambda_gb_second": Price(13.3334, 1e6, "aws.amazon.com/lambda/pricing: arm64, duration"),
    "lambda_request": Price(0.20, 1e6, "aws.amazon.com/lambda/pricing: requests"),
    "state_transition": Price(0.025, 1e3, "aws.amazon.com/step-functions/pricing: Standard"),
    "express_request": Price(1.00, 1e6, "aws.amazon.com/step-functions/pricing: Express, requests"),
    "express_gb_second": Price(16.67, 1e6, "aws.amazon.com/step-functions/pricing: Express, duration"),
    "s3_put": Price(0.005, 1e3, "aws.amazon.com/s3/pricing: Standard; PUT, COPY, POST, LIST"),
    "s3_get": Price(0.0004, 1e3, "aws.amazon.com/s3/pricing: Standard; GET, HEAD and all others"),
    "dynamodb_write": Price(0.625, 1e6, "aws.amazon.com/dynamodb/pricing/on-demand: write request units"),
    "dynamodb_read": Price(0.125, 1e6, "aws.amazon.com/dynamodb/pricing/on-demand: read request units"),
    "event": Price(1.00, 1e6, "aws.amazon.com/eventbridge/pricing: custom events"),
    "sqs_request": Price(0.40, 1e6, "aws.amazon.com/sqs/pricing: Standard"),
    "api_request": Price(3.50, 1e6, "aws.amazon.com/api-gateway/pricing: REST"),
    "secret_call": Price(0.05, 1e4, "aws.amazon.com/secrets-manager/pricing: API calls"),
    "log_gb": Price(0.50, 1e9, "aws.amazon.com/cloudwatch/pricing: logs, ingestion (bytes)"),
}

Amounts = dict[tuple[str, str], float]  # by priced unit and user, such as ("s3_put", "RunChunk")


def amounts(usage: Usage, memory: Mapping[str, float], waiting: str | None = "RunChunk") -> Amounts:
    """The usage in priced units. ``memory`` is each function's in GB; ``waiting`` is the function that only waits."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for name, seconds in usage.seconds.items():
        share = min(1.0, memory[name] / WHOLE_CORE_GB)
        # In real time, RunChunk computes while it waits.
        computes = 0 if name == waiting else min(seconds, usage.cpu[name])
        assert name == waiting or computes or seconds < 1, f"{name} has ended, and its CPU time is unknown"
        found["lambda_gb_second", name] = memory[name] * (seconds + computes * (1 / share - 1))
        found["lambda_request", name] = float(usage.invocations[name])
    found["state_transition", "RunBatch"] = usage.transitions
    for (name, service, operation), count in usage.calls.items():
        if service == "s3" and operation != "DELETE":
            found["s3_put" if operation in ("PUT", "COPY", "POST", "LIST") else "s3_get", name] += count
        elif service == "secretsmanager":
            found["secret_call", name] += count
        elif service == "awsevents":
            found["event", name] += count
    found["s3_get", "RunBatch"] = usage.map_runs  # The Map reads the plan.
    for (name, kind), taken in usage.units.items():
        found[f"dynamodb_{kind}", name] += taken
    found["api_request", "Api"] = usage.invocations["Api"]
    found["api_request", "CreateBatch"] = usage.invocations["CreateBatch"]
    # The terminal event is sent to the queue, received, and deleted.
    found["sqs_request", "DeliverWebhook"] = 3 * usage.invocations["DeliverWebhook"]
    found["log_gb", "all"] = usage.log_bytes
    return found


def at_latency(usage: Usage, count: int, latency: float, timeout: float = 600) -> Usage:
    """The usage of the same batch with answers after ``latency`` seconds, in full slices of one worker.

    It adds the seconds of waiting; for every ``store_seconds`` of them a result part and a progress write; for every
    ``tick_seconds`` a read of the status, and a read and a write of the lease; and for each further slice a start, a
    HEAD of each segment, a list of the result parts, and a read of those of open segments. A slice sends no request in
    its last ``timeout`` + 20 seconds, and is billed until the last answer. A run with this latency stays as it is.
    """
    scaled = deepcopy(usage)
    if usage.latency == latency:
        return scaled
    work = count / layout.WORKER_CONCURRENCY * latency
    starting = INVOCATION_SECONDS - LIMITS.slice_margin_seconds - timeout
    slices = max(1, math.ceil(work / (starting + latency)))
    # The time beyond the rounds of requests is what a slice needs to start and to end.
    rounds = math.ceil(count / layout.WORKER_CONCURRENCY)
    overhead = max(0.0, usage.seconds["RunChunk"] - rounds * usage.latency)
    # At the end of a slice, half of a request's time is lost, because requests end one after another. A short batch
    # takes whole rounds.
    seconds = max(work + slices * (overhead + latency / 2), rounds * latency + overhead)
    more_seconds = max(0.0, seconds - usage.seconds["RunChunk"])
    keeps, ticks = more_seconds / LIMITS.store_seconds, more_seconds / LIMITS.tick_seconds
    further = slices - 1
    segments = math.ceil(count / layout.SEGMENT_LINES)
    open_parts = math.ceil(layout.SEGMENT_LINES / layout.WORKER_CONCURRENCY * latency / LIMITS.store_seconds)
    for (service, operation), more in {
        ("s3", "PUT"): keeps,
        ("s3", "HEAD"): further * segments,
        ("s3", "LIST"): further,
        ("s3", "GET"): further * open_parts,
        ("dynamodb", "PutItem"): keeps + ticks,
        ("dynamodb", "GetItem"): ticks + further,
        ("dynamodb", "Query"): ticks,
    }.items():
        scaled.calls["RunChunk", service, operation] += math.ceil(more)
    scaled.units["RunChunk", "write"] += math.ceil(keeps + ticks)
    scaled.units["RunChunk", "read"] += math.ceil(2 * ticks + further)
    scaled.invocations["RunChunk"] += further
    scaled.slices["more"] += further
    scaled.seconds["RunChunk"] = seconds
    scaled.transitions += 2 * further
    return scaled


def dollars(used: Amounts) -> dict[str, float]:
    """The price of ``used`` by priced unit. RunChunk's GB-seconds are separate; the rest is orchestration."""
    prices: defaultdict[str, float] = defaultdict(float)
    for (what, whose), amount in used.items():
        key = "RunChunk's GB-seconds" if (what, whose) == ("lambda_gb_second", "RunChunk") else what
        prices[key] += PRICES[what].of(amount)
    return dict(prices)


def orchestration(prices: Mapping[str, float]) -> float:
    return sum(prices.values()) - prices["RunChunk's GB-seconds"]


def run_batch(
    local: Local,
    meter: Meter,
    count: int,
    latency_ms: float,
    url: str,
    polls: int = 0,
    meanwhile: Callable[[str], None] = lambda _: None,
    **fields: Any,
) -> Usage:
    """Run one batch from upload to download and count what it uses, with ``polls`` reads by its caller.

    ``meanwhile`` is called with the batch's id after its start; ``fields`` are further ones of its route.
    """
    routes.apply([route_to(url, **fields)])
    content = input_file(count, LINE_BYTES, MODEL)
    meter.start()
    started = time.monotonic()
    file_id = upload(local, content)
    batch = local.client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    for _ in range(polls):
        local.client.batches.retrieve(batch.id)
    meanwhile(batch.id)

    # The end is read from Step Functions, because calls of the API are counted.
    def ended() -> bool:
        return all(each["status"] != "RUNNING" for each in executions(local, batch.id))

    wait_for(ended, 3600)
    took = time.monotonic() - started
    time.sleep(3)  # the last event and its delivery
    batch = local.client.batches.retrieve(batch.id)
    assert batch.request_counts is not None
    assert batch.output_file_id is not None
    assert batch.request_counts.completed == count, batch.request_counts
    assert local.client.files.content(batch.output_file_id).text.count("\n") == count
    usage = meter.stop(batch.id)
    usage.took, usage.latency = took, latency_ms / 1000
    empty(local)
    return usage


def route_to(url: str, **fields: Any) -> Route:
    """A route that allows as many requests in flight as a worker may have."""
    return Route(
        model=MODEL,
        provider="stub",
        base_url=url,
        upstream_model="stub",
        sku=Sku("bench"),
        api_key_secret=SECRET,
        max_concurrency=layout.WORKER_CONCURRENCY,
        **fields,
    )


@contextmanager
def running(name: str, *latencies_ms: float) -> Iterator[tuple[Local, Meter, list[str]]]:
    """A stack whose calls are counted, and the URLs of upstreams that speak TLS, one for each latency."""
    with (
        tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder,
        ExitStack() as upstreams,
        stack(name) as local,
        local.environment("RunChunk", SSL_CERT_FILE=f"{folder}/trusted.pem"),
        metered(local) as meter,
    ):
        made = certificate(Path(folder))
        yield local, meter, [upstreams.enter_context(stub.upstream(each, certificate=made)) for each in latencies_ms]


def memory_of(local: Local) -> dict[str, float]:
    """Each function's memory in GB."""
    return {name: int(found["MemorySize"]) / 1024 for name, found in configured(local).items()}


# --- alternatives, at the same prices: a million lines at SECONDS_PER_LINE --------------------------------


def lambda_per_request(memory_gb: float, express: bool) -> float:
    """A Distributed Map with one Lambda for each line. Its ResultWriter writes the results into a few objects."""
    one = PRICES["lambda_gb_second"].of(memory_gb * SECONDS_PER_LINE) + PRICES["lambda_request"].of(1)
    one += PRICES["state_transition"].of(1)  # each child's start
    if express:  # as AWS advises for children shorter than five minutes; at least 64 MB are billed
        one += PRICES["express_request"].of(1) + PRICES["express_gb_second"].of(64 / 1024 * SECONDS_PER_LINE)
    else:
        one += PRICES["state_transition"].of(1)  # its one state
    return 1e6 * one


def sqs_by_ten(memory_gb: float, results_per_object: int) -> float:
    """A message for each line, sent, received and deleted in tens. A Lambda sends ten requests at once and writes the
    answers to S3."""
    ten = PRICES["lambda_gb_second"].of(memory_gb * SECONDS_PER_LINE) + PRICES["lambda_request"].of(1)
    ten += PRICES["sqs_request"].of(3) + PRICES["s3_put"].of(10 / results_per_object)
    return 1e5 * ten


PEERS: dict[str, Callable[[], float]] = {
    "one Lambda per request, Standard children, 256 MB": lambda: lambda_per_request(0.25, express=False),
    "one Lambda per request, the least: Express children, 128 MB": lambda: lambda_per_request(0.125, express=True),
    "SQS by ten, 256 MB, an object per answer": lambda: sqs_by_ten(0.25, 1),
    "SQS by ten, the least: 128 MB, an object per ten": lambda: sqs_by_ten(0.125, 10),
}


def row(name: str, figure: float, unit: str, base: float | None = None) -> dict[str, Any]:
    return report.row(name, [figure], unit, None if base is None else [base])


def polls_of(count: int) -> int:
    """How often a caller polls a batch of ``count`` lines, at ten seconds a line."""
    return round(count / layout.WORKER_CONCURRENCY * SECONDS_PER_LINE / POLL_SECONDS)


def main() -> None:
    long = "--long" in sys.argv
    latency_ms = SECONDS_PER_LINE * 1000 if long else SHORT_MS
    with running("cost-long" if long else "cost", latency_ms) as (local, meter, [url]):
        memory = memory_of(local)
        counted = run_batch(local, meter, LINES, latency_ms, url, polls_of(LINES))
    publish(counted, memory, long)


def run_chunk_rows(megabytes: int, gb_seconds_per_gb: float, cpu: float) -> list[dict[str, Any]]:
    """Price and load of RunChunk with this memory. ``cpu``: seconds a line on a whole core."""
    share = min(1.0, megabytes / 1024 / WHOLE_CORE_GB)
    price = PRICES["lambda_gb_second"].of(gb_seconds_per_gb * megabytes / 1024) * 1e6 / LINES
    busy = layout.WORKER_CONCURRENCY * cpu / share
    return [
        row(f"RunChunk at {megabytes} MB: $ per 1M lines at 10 s", price, "$"),
        row(f"RunChunk at {megabytes} MB: share of its CPU that it uses at 10 s", busy / SECONDS_PER_LINE, ""),
        row(f"RunChunk at {megabytes} MB: full while answers take at least", busy, "s"),
    ]


def publish(counted: Usage, memory: Mapping[str, float], long: bool = False) -> None:
    """Publish the cost of a batch of ``LINES`` with the usage ``counted``. ``long``: it took ten seconds a line."""
    usage = counted if long else at_latency(counted, LINES, SECONDS_PER_LINE)
    before, used = amounts(counted, memory), amounts(usage, memory)
    prices = {what: amount * 1e6 / LINES for what, amount in dollars(used).items()}
    total = sum(prices.values())
    how = "counted" if long else f"counted at {counted.latency:g} s a line"
    rows = [row(f"{how}: {what}, {whose}", amount, "") for (what, whose), amount in sorted(before.items()) if amount]
    rows += [row(f"RunChunk's seconds, {how}", counted.seconds["RunChunk"], "s")]
    cpu = counted.cpu["RunChunk"] / LINES
    rows += [row("RunChunk's CPU time, a line", 1000 * cpu, "ms")]
    if not long:
        rows += [
            row(f"scaled to {SECONDS_PER_LINE:g} s a line: {what}, {whose}", amount, "")
            for (what, whose), amount in sorted(used.items())
            if amount != before.get((what, whose))
        ]
    rows += [row(f"$ per 1M lines at 10 s: {what}", amount, "$", total) for what, amount in sorted(prices.items())]
    rows += [row("$ per 1M lines at 10 s: all", total, "$")]
    gb_seconds_per_gb = used["lambda_gb_second", "RunChunk"] / memory["RunChunk"]
    for megabytes in (256, 384, 512, 1024, 1769):
        rows += run_chunk_rows(megabytes, gb_seconds_per_gb, cpu)
    peers = {name: priced() for name, priced in PEERS.items()}
    rows += [row(f"$ per 1M lines at 10 s: {name}", theirs, "$", total) for name, theirs in peers.items()]
    targets = [
        report.target("$ per 1M lines", total, 0.115, at_least=False),
        report.target("$ per 1M lines: orchestration", orchestration(prices), 0.04, at_least=False),
    ]
    for name, theirs in peers.items():
        targets.append(report.target(f"times cheaper than {name}", theirs / total, 20 if "SQS" in name else 100))
    report.publish("cost_long" if long else "cost", rows, targets, report.versions("aiohttp", "boto3"))
    for what, listed in PRICES.items():
        print(f"  {what}: ${listed.dollars:g} per {listed.per:g}; {listed.source}")


if __name__ == "__main__":
    main()
