"""The end of a slice: how much of a worker that is always full the real rule for the last start achieves.

A simulation of one worker with 256 requests in flight that works for six hours, slice after slice, on an upstream with
log-normal latencies. `python -m bench.tails`
"""

import heapq
from dataclasses import dataclass

from nightshift.chunks.tail import Latencies, Tail, request_seconds
from nightshift.engine.slice import LIMITS

from bench import report, stub
from bench.cost import INVOCATION_SECONDS

IN_FLIGHT = 256
TIMEOUT_SECONDS = 600.0
# A worker's start, and reading what is stored.
START_SECONDS = 1.0
SLICES = 12
# Median and 99th percentile of the latencies, in seconds.
UPSTREAMS = ((2, 20), (5, 60), (10, 60), (10, 120), (30, 300), (60, 400))
WANTED = 0.85


@dataclass
class Work:
    """What a worker's slices did: requests, those that were cut off, and the seconds that answers took."""

    sent: int = 0
    cut: int = 0
    answered_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """The part of the time in which each of the places in flight worked on an answer that counts."""
        return self.answered_seconds / (IN_FLIGHT * self.seconds)


def run(median: float, p99: float, slices: int = SLICES, seed: int = 1, old_rule: bool = False) -> Work:
    """``old_rule`` starts no request that could not take the whole timeout."""
    latency = stub.Latency(median, p99, seed)
    done = Work()
    latencies, again = Latencies(), list[float]()
    for _ in range(slices):
        again, took = run_slice(latency, latencies, again, done, old_rule)
        latencies = Latencies(latencies.carry())
        done.seconds += took
    return done


def run_slice(
    latency: stub.Latency, latencies: Latencies, again: list[float], done: Work, old_rule: bool
) -> tuple[list[float], float]:
    """One slice, which first sends what was cut off, ``again``. Returns what it cuts off, and its seconds."""
    now, last_answer_at = START_SECONDS, INVOCATION_SECONDS - LIMITS.slice_margin_seconds
    longest = request_seconds(TIMEOUT_SECONDS, last_answer_at)
    tail = Tail(last_answer_at, longest, now, latencies)
    flying: list[tuple[float, float]] = []
    waiting = again[::-1]
    while True:
        last_start_at = last_answer_at - longest if old_rule else tail.last_start_at
        while now < last_start_at and len(flying) < IN_FLIGHT:
            seconds = waiting.pop() if waiting else min(latency.draw(), longest)
            done.sent += 1
            heapq.heappush(flying, (now + seconds, seconds))
        if not flying or flying[0][0] > last_answer_at:
            break
        now, seconds = heapq.heappop(flying)
        latencies.add(seconds)
        done.answered_seconds += seconds
    if flying:
        now = last_answer_at
    done.cut += len(flying)
    return [seconds for _, seconds in flying] + waiting, now + 1.0  # a second to end


def main() -> None:
    rows, targets = [], []
    for median, p99 in UPSTREAMS:
        work = run(median, p99)
        what = f"median {median} s, p99 {p99} s"
        before = run(median, p99, old_rule=True).share
        rows.append(report.row(f"{what}: share of a full worker", [work.share], "of 1", [before]))
        rows.append(report.row(f"{what}: sent again of all requests", [100 * work.cut / work.sent], "%", [100.0]))
        if (median, p99) == (10, 120):
            targets.append(report.target(f"share of a full worker, {what}", work.share, WANTED))
            targets.append(report.target("requests sent twice", work.cut / work.sent, 0.01, at_least=False))
    report.publish("tails", rows, targets, {})


if __name__ == "__main__":
    main()
