"""A worker's rate against the limit, against other clients, and against the best possible schedule.

Ours is the whole handler of `functions/run_chunk`: it reads the input from an emulated S3 by ranges, parses it, sends
the requests, judges and counts the answers, rewrites the model, writes result parts and seals segments. The peers
(`peers.py`) only send requests and read answers. All have 256 requests in flight, against the same stub upstream on
loopback.

Requests/s is what a user sees, but it is noisy, and with 50 ms of latency it cannot exceed 256 / 0.05 = 5,120. CPU
ms/request is the cost of the client itself. It is steadier, and says how many requests one vCPU can send.
"""

import argparse
import contextlib
import heapq
import io
import json
import time
from collections import defaultdict
from functools import partial
from statistics import median
from typing import Any

import msgspec
from nightshift.core.log import logger
from nightshift.input import plan
from nightshift.results import store as results

from bench import peers, report, stub
from bench.emulator import emulated_aws
from bench.peers import IN_FLIGHT, cpu_seconds
from tests.integration.support import MODEL, apply_route, new_caller, run_chunk

Rows = list[dict[str, Any]]
OURS = "run_chunk, whole"
# How many requests each sends in one run at 50 ms. Each run takes one to two seconds.
REQUESTS = {
    "protocol": 6_000,
    "aiohttp": 8_000,
    OURS: 8_000,
    "openai[aiohttp]": 1_024,
    "openai": 512,
    "litellm": 256,
}
SHOWN = {
    "protocol": "bare asyncio protocol (the limit)",
    "aiohttp": "bare aiohttp, bytes in and out",
    "openai": "openai, default",
}
# The target of the worker's rate, as a multiple of each.
WANTED = {"aiohttp": 0.6, "openai[aiohttp]": 5, "openai": 12, "litellm": 12}
# A twentieth of the latencies in question (median 2 s, p99 20 s), so that 50,000 lines take half a minute.
MEDIAN_MS, P99_MS = 100, 1000


def input_file(count: int) -> bytes:
    body = {"model": MODEL, "messages": peers.MESSAGES}
    return b"\n".join(
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
        for n in range(count)
    )


def ours(url: str, count: int, in_flight: int = IN_FLIGHT) -> tuple[float, float]:
    """Run one chunk of ``count`` lines. Returns the seconds and the CPU seconds."""
    apply_route(url, max_concurrency=in_flight)
    with contextlib.redirect_stdout(io.StringIO()):  # metrics are printed
        batch_id = new_caller(f"bench {time.time_ns()}").begin(input_file(count))
        (task,) = plan.read(batch_id) or []
        started, busy = time.perf_counter(), cpu_seconds()
        answer = run_chunk(msgspec.to_builtins(task))
        took = time.perf_counter() - started, cpu_seconds() - busy
    sealed = [summary.completed if summary else 0 for summary in results.read_seals(batch_id, task.segments)]
    assert (answer["state"], sum(sealed)) == ("done", count), (answer, sealed)
    return took


class Rates:
    """Requests/s and CPU ms/request of all clients, against one stub."""

    def __init__(self, url: str, processes: dict[str, peers.Peer], share: int) -> None:
        self._url = url
        self._clients = {name: process.run for name, process in processes.items()} | {OURS: ours}
        self._share = share
        self.cpu: defaultdict[str, list[float]] = defaultdict(list)
        for run in self._clients.values():
            run(url, IN_FLIGHT)  # imports, first answers

    def measure(self, name: str) -> float:
        count = REQUESTS[name] // self._share
        seconds, busy = self._clients[name](self._url, count)
        self.cpu[name].append(1000 * busy / count)
        return count / seconds


def against_peers(times: int, share: int) -> tuple[Rows, Rows, dict[str, str]]:
    """All clients at 50 ms of latency, with 1/``share`` of the requests: rows, targets, the versions of the peers."""
    names = [name for name in REQUESTS if name != OURS]
    with stub.upstream(50) as url, peers.started(*names) as started:
        processes = dict(zip(names, started, strict=True))
        # Ours come last, so that they are shown where peers have a package in another version.
        versions = {name: version for each in reversed(started) for name, version in each.versions.items()}
        rates = Rates(url, processes, share)
        figures = report.repeat({name: partial(rates.measure, name) for name in REQUESTS}, times)
    rows: Rows = []
    for unit, each in (("req/s", figures), ("ms/req", rates.cpu)):
        what = "50 ms" if unit == "req/s" else "50 ms, CPU"
        rows += [report.row(f"{what}: {SHOWN.get(name, name)}", each[name], unit, each["aiohttp"]) for name in REQUESTS]
    targets = [
        report.target(f"{OURS}, against {SHOWN.get(name, name)}", median(figures[OURS]) / median(figures[name]), wanted)
        for name, wanted in WANTED.items()
    ]
    return rows, targets, versions


def against_ideal(times: int, rounds: int) -> tuple[Rows, Rows]:
    """With one second of latency, at most ``IN_FLIGHT`` requests/s are possible."""
    count = rounds * IN_FLIGHT
    with stub.upstream(1000) as url:
        figures = report.repeat({f"1 s: {OURS}": lambda: count / ours(url, count)[0]}, times)
    rows = [report.row(name, each, "req/s", [float(IN_FLIGHT)]) for name, each in figures.items()]
    return rows, [report.target("share of the ideal rate at 1 s", rows[0]["ratio"], 0.97)]


def against_best_schedule(times: int, count: int) -> tuple[Rows, Rows]:
    """Log-normal latencies, with other draws in each run.

    No schedule is shorter than the sum of all latencies shared out evenly, or than the longest of them. The latencies
    are not known in advance, so "in the input's order" is what a client without its own cost would take.
    """
    seeds = iter(range(1, times + 1))
    bounds: list[float] = []
    in_order: list[float] = []

    def makespan() -> float:
        seed = next(seeds)
        with stub.upstream(MEDIAN_MS, P99_MS, seed=seed) as url:
            seconds, _ = ours(url, count)
            given = stub.given(url)
        assert given["answers"] == count, "requests were repeated"
        bounds.append(max(given["seconds"] / IN_FLIGHT, given["longest"]))
        latency = stub.Latency(MEDIAN_MS / 1000, P99_MS / 1000, seed)
        free = [0.0] * IN_FLIGHT
        for _ in range(count):
            heapq.heapreplace(free, free[0] + latency.draw())
        in_order.append(max(free))
        return seconds

    took = report.repeat({f"makespan of {count:,} lines": makespan}, times).popitem()[1]
    rows = [
        report.row("log-normal: no schedule is shorter than", bounds, "s", bounds),
        report.row("log-normal: in the input's order, at no cost", in_order, "s", bounds),
        report.row(f"log-normal: {OURS}, {count:,} lines", took, "s", bounds),
    ]
    ratio = median(seconds / bound for seconds, bound in zip(took, bounds, strict=True))
    return rows, [report.target("makespan against the best", ratio, 1.10, at_least=False)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two short runs of each, and no makespan")
    parser.add_argument("--makespans", type=int, default=1, help="runs of the makespan, about 35 s each")
    given = parser.parse_args()
    times = 2 if given.quick else 3
    logger.setLevel("ERROR")
    with emulated_aws():
        rows, targets, versions = against_peers(times, share=2 if given.quick else 1)
        parts = [against_ideal(times, rounds=5 if given.quick else 10)]
        if not given.quick:
            parts.append(against_best_schedule(given.makespans, 50_000))
        for more_rows, more_targets in parts:
            rows += more_rows
            targets += more_targets
    report.publish("run_chunk", rows, targets, versions | report.versions("msgspec", "boto3"))


if __name__ == "__main__":
    main()
