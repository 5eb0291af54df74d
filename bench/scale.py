"""Whether time and cost per line stay flat as batches grow, and what saturates first when a hundred large ones come.

Batches of 1,000 to 50,000 lines run on a local stack with a full worker, and are counted as in `bench.cost`, where the
last of them is told in full. Time and cost are then computed for ten seconds a line. The hundred batches are simulated:
their workers by the same counts, started by Step Functions as fast as AWS's default quotas let them. Writes
docs/scale.svg.
"""

import heapq
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightshift.engine.slice import LIMITS
from nightshift.input import layout

from bench import cost, report, stub
from bench.cost import (
    INVOCATION_SECONDS,
    LINE_BYTES,
    SECONDS_PER_LINE,
    SHORT_MS,
    amounts,
    at_latency,
    dollars,
    look_ups,
    memory_of,
    row,
    run_batch,
)
from bench.meter import metered
from bench.stack import stack

SIZES = (1_000, 4_000, 14_000, 50_000)
FLAT = 0.15
PLOT = Path(__file__).parent.parent / "docs" / "scale.svg"
TIMEOUT = 600.0  # a route's timeout_seconds where it says nothing


# --- a hundred batches at once --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quotas:
    """What AWS gives an account in a region unless asked for more (us-east-1); docs/scale.md names the sources."""

    lambda_concurrency: int = 1_000
    lambda_scaling: float = 100.0  # new environments a second, for each function: 1,000 every ten seconds
    transitions: float = 5_000.0  # a second
    executions: float = 300.0  # started a second, beyond a first burst of 1,300
    map_runs: int = 1_000
    map_children: int = 40  # MaxConcurrency of the state machine's Map
    s3_puts: float = 3_500.0  # a second and prefix
    s3_gets: float = 5_500.0
    table_writes: float = 4_000.0  # a new on-demand table
    partition_writes: float = 1_000.0
    partition_reads: float = 3_000.0


@dataclass
class Load:
    """What the simulated batches asked for, each second; and how long they took."""

    quotas: Quotas
    seconds: float = 0
    most_workers: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # starts, by why
    asked: dict[str, defaultdict[int, float]] = field(default_factory=dict)

    def ask(self, what: str, at: float, amount: float = 1) -> None:
        self.asked.setdefault(what, defaultdict(float))[int(at)] += amount

    def spread(self, what: str, start: float, end: float, rate: float) -> None:
        for second in range(int(start), math.ceil(end)):
            self.ask(what, second, rate)

    def shares(self) -> dict[str, float]:
        """The highest second's share of each quota."""
        limits = {
            "Step Functions: state transitions a second": self.quotas.transitions,
            "Step Functions: open map runs": self.quotas.map_runs,
            "S3: PUTs a second, were all of it one prefix": self.quotas.s3_puts,
            "S3: GETs and HEADs a second, were all of it one prefix": self.quotas.s3_gets,
            "DynamoDB: writes a second to Batches": self.quotas.table_writes,
            "DynamoDB: writes a second of one batch": self.quotas.partition_writes,
            "DynamoDB: reads a second of one account's batches": self.quotas.partition_reads,
        }
        return {"Lambda: workers at once": self.most_workers / self.quotas.lambda_concurrency} | {
            what: max(self.asked[what].values()) / limit for what, limit in limits.items()
        }


def simulate(batches: int, lines: int, max_concurrency: int, quotas: Quotas, latency: float = SECONDS_PER_LINE) -> Load:
    """``batches`` created in the same second, all of them on routes with this ``max_concurrency``.

    Each chunk is cut by the real plan and worked on in slices, as in ``bench.cost.at_latency``. A start that finds no
    room in Lambda is tried again as the state machine says: after 2 s, then 1.5 times longer up to 60 s, fully
    jittered.
    """
    rng = random.Random(1)
    load = Load(quotas)
    latency = SECONDS_PER_LINE
    spans = layout.segments([LINE_BYTES * (line + 1) for line in range(lines)])
    shares = layout.chunks(spans, max_concurrency)
    in_flight = layout.chunk_concurrency(max_concurrency, len(shares))
    starting = INVOCATION_SECONDS - LIMITS.slice_margin_seconds - TIMEOUT
    a_slice = in_flight * (math.floor(starting / latency) + 1)
    # (when, tie, batch, chunk, lines left, failed tries)
    events: list[tuple[float, int, int, int, int, int]] = []
    waiting = [list(range(len(shares))) for _ in range(batches)]
    tie = 0

    def begin(at: float, batch: int) -> None:
        nonlocal tie
        if waiting[batch]:
            number = waiting[batch].pop(0)
            load.ask("Step Functions: state transitions a second", at, 2)
            tie += 1
            heapq.heappush(events, (at, tie, batch, number, sum(span.lines for span in shares[number]), 0))

    for batch in range(batches):
        # Created as fast as executions may start; validated and begun within two seconds.
        at = max(0.0, batch - 1_300) / quotas.executions + 2.0
        load.ask("Step Functions: state transitions a second", at, 3)
        for _ in range(min(quotas.map_children, len(shares))):
            begin(at, batch)
    running: list[float] = []  # when each busy worker is free again
    environments, allowance, clock = 0, quotas.lambda_scaling * 10, 0.0
    ends = [0.0] * batches
    while events:
        at, _, batch, number, left, tries = heapq.heappop(events)
        while running and running[0] <= at:
            heapq.heappop(running)
        allowance = min(quotas.lambda_scaling * 10, allowance + (at - clock) * quotas.lambda_scaling)
        clock = at
        cold = len(running) >= environments
        full = len(running) >= quotas.lambda_concurrency
        if full or (cold and allowance < 1):
            load.refused["workers at once" if full else "new workers in ten seconds"] += 1
            pause = rng.random() * min(60.0, 2 * 1.5 ** min(tries, 20))
            tie += 1
            # Each retry is a state transition of its own.
            load.ask("Step Functions: state transitions a second", at + pause)
            heapq.heappush(events, (at + pause, tie, batch, number, left, tries + 1))
            continue
        if cold:
            environments += 1
            allowance -= 1
        now = min(left, a_slice)
        # Its start, its rounds, and what its last answers are late.
        end = at + 1.0 + (math.ceil(now / in_flight) + rng.random()) * latency
        heapq.heappush(running, end)
        load.most_workers = max(load.most_workers, len(running))
        load.spread("Lambda: workers at once", at, end, 1)
        keeps = 1 / LIMITS.store_seconds
        load.spread("S3: PUTs a second, were all of it one prefix", at, end, keeps)
        load.spread("DynamoDB: writes a second to Batches", at, end, keeps)
        load.spread("DynamoDB: reads a second of one account's batches", at, end, keeps)
        if batch == 0:
            load.spread("DynamoDB: writes a second of one batch", at, end, keeps)
        load.ask("S3: GETs and HEADs a second, were all of it one prefix", at, len(shares[number]) + 2)
        load.ask("Step Functions: state transitions a second", end, 2)
        if left > now:
            tie += 1
            heapq.heappush(events, (end, tie, batch, number, left - now, 0))
        else:
            begin(end, batch)
            ends[batch] = max(ends[batch], end)
    for end in ends:
        # Finalize: every segment asked for and read, within the two seconds that it takes.
        load.spread("S3: GETs and HEADs a second, were all of it one prefix", end, end + 2, len(spans))
        load.spread("Step Functions: open map runs", 2, end, 1)
    load.seconds = max(ends)
    return load


SCENARIOS = {
    "256 in flight for each batch": (100, 256, Quotas()),
    "2,560 for each batch": (100, 2_560, Quotas()),
    "10,000 for each batch": (100, 10_000, Quotas()),
    "10,000 for each batch, Lambda raised to 5,000": (100, 10_000, Quotas(lambda_concurrency=5_000)),
    "10,000 for each batch, half of them in a second account": (50, 10_000, Quotas()),
}


# --- the plot -------------------------------------------------------------------------------------------------------


def polyline(points: Sequence[tuple[float, float]], colour: str) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def panel(
    left: float,
    title: str,
    series: dict[str, list[tuple[float, float]]],
    ticks: Sequence[float],
    top: float,
    log: bool,
    unit: str,
) -> list[str]:
    """One diagram, 300 by 200, from zero to ``top``; the x axis at ``ticks``."""
    low, high = ticks[0], ticks[-1]
    colours = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(x / low) / math.log(high / low) if log else (x - low) / (high - low)
        return left + 300 * share, 240 - 200 * min(y, top) / top

    drawn = [
        text(left, 24, title),
        f'<path d="M{left} 40V240H{left + 300}" fill="none" stroke="#999"/>',
        *(text(place(tick, 0)[0], 256, f"{tick:,.0f}", "middle") for tick in ticks),
        text(left + 300, 272, unit, "end"),
    ]
    for part in (0.25, 0.5, 0.75, 1.0):
        y = 240 - 200 * part
        drawn.append(f'<path d="M{left} {y}h300" stroke="#eee"/>')
        drawn.append(text(left - 6, y + 4, f"{top * part:,.3g}", "end"))
    for number, (name, points) in enumerate(series.items()):
        drawn.append(polyline([place(*point) for point in points], colours[number]))
        drawn.append(text(left, 292 + 16 * number, name, colour=colours[number]))
    return drawn


def write_plot(
    times: list[tuple[float, float]], costs: list[tuple[float, float]], loads: dict[str, Load], path: Path = PLOT
) -> None:
    workers = {
        name: [(second / 60, float(count)) for second, count in sorted(load.asked["Lambda: workers at once"].items())][
            ::5
        ]
        for name, load in loads.items()
    }
    minutes = max(points[-1][0] for points in workers.values())
    most = max(count for points in workers.values() for _, count in points)
    ticks = [float(size) for size in SIZES]
    drawn = [
        *panel(60, "ms a line, at 10 s an answer", {"measured and scaled": times}, ticks, 80, True, "lines"),
        *panel(430, "$ per 1M lines, at 10 s an answer", {"counted and scaled": costs}, ticks, 1.0, True, "lines"),
        *panel(
            800,
            "100 batches of 50,000: workers",
            workers,
            [0, 10, 20, 30, math.ceil(minutes / 10) * 10],
            most,
            False,
            "minutes",
        ),
    ]
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1140 380" font-family="sans-serif" font-size="11">'
        '<rect width="1140" height="380" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def main() -> None:
    sizes = SIZES[:2] if "--quick" in sys.argv else SIZES
    rows: list[dict[str, Any]] = []
    times: list[tuple[float, float]] = []
    costs: list[tuple[float, float]] = []
    with stub.upstream(SHORT_MS) as url, stack("scale") as local, metered(local) as meter:
        memory = memory_of(local)
        run_batch(local, meter, 100, SHORT_MS, url)  # so that every function has had its cold start
        for count in sizes:
            usage = run_batch(local, meter, count, SHORT_MS, url, look_ups(count))
            scaled = at_latency(usage, count, SECONDS_PER_LINE)
            rounds = math.ceil(count / layout.WORKER_CONCURRENCY)
            fixed = usage.took - rounds * usage.latency
            took = usage.took - usage.seconds["RunChunk"] + scaled.seconds["RunChunk"]
            used = amounts(scaled, memory)
            prices = dollars(used)
            # A chunk's own transitions: its start and its end, and two for each slice.
            own = {key: amount for key, amount in used.items() if key[1] == "RunChunk"} | {
                ("state_transition", "RunChunk"): 2 + 2 * scaled.slices.total()
            }
            chunk_price = sum(dollars(own).values())
            price = sum(prices.values())
            steps = prices["state_transition"] + prices["lambda_gb_second"]
            times.append((count, 1000 * took / count))
            costs.append((count, 1e6 * price / count))
            print(f"  {count}: {usage.took:.1f} s", file=sys.stderr, flush=True)
            rows += [
                row(f"{count:,} lines: took, at {usage.latency:g} s an answer", usage.took, "s"),
                row(f"{count:,} lines: of it not the requests", fixed, "s"),
                row(f"{count:,} lines: at 10 s an answer", took, "s"),
                row(f"{count:,} lines: a line, at 10 s an answer", times[-1][1], "ms"),
                row(f"{count:,} lines: $ per 1M lines", costs[-1][1], "$"),
                row(f"{count:,} lines: of it state transitions and the other functions", 1e6 * steps / count, "$"),
                row(f"{count:,} lines in one chunk: $ per 1M lines, the chunk alone", 1e6 * chunk_price / count, "$"),
            ]
    loads = {
        name: simulate(batches, 50_000, concurrency, quotas)
        for name, (batches, concurrency, quotas) in SCENARIOS.items()
    }
    for name, load in loads.items():
        rows.append(row(f"100 x 50,000, {name}: minutes", load.seconds / 60, "min"))
        for why in ("workers at once", "new workers in ten seconds"):
            rows.append(row(f"100 x 50,000, {name}: starts refused, {why}", load.refused[why], ""))
        rows += [row(f"100 x 50,000, {name}: {what}, of the quota", share, "") for what, share in load.shares().items()]
    if sizes == SIZES:
        write_plot(times, costs, loads)
    targets = [
        report.target(
            f"{what}, {SIZES[0]:,} lines against {sizes[-1]:,}", found[0][1] / found[-1][1], 1 + FLAT, at_least=False
        )
        for what, found in (("time a line", times), ("cost a line", costs))
    ] + [
        report.target(f"{what}, {count:,} lines against {sizes[-1]:,}", cost / found[-1][1], 1 + FLAT, at_least=False)
        for what, found in (("time a line", times), ("cost a line", costs))
        for count, cost in found[1:-1]
    ]
    if sizes == SIZES:
        cost.publish(usage, memory)
    report.publish("scale", rows, targets, report.versions("aiohttp", "boto3"))


if __name__ == "__main__":
    main()
