"""Whether time and cost per line stay flat as batches grow and multiply, and which quota many large ones reach first.

Batches of 1,000 to 50,000 lines run on a local stack with a full worker, and are counted as in `bench.cost`, which
publishes the largest of them in detail. The smallest has answers after ten seconds; time and cost of the others are
computed for that. Twenty batches on one route run for real, small; a million lines in twenty batches, and a hundred
batches, are simulated by `bench.simulation`. The diagrams are docs/scale.svg.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from nightshift.input import layout
from nightshift.routes import store as routes
from openai.types import Batch

from bench import cost, report
from bench.cost import (
    SECONDS_PER_LINE,
    SHORT_MS,
    amounts,
    at_latency,
    dollars,
    memory_of,
    polls_of,
    row,
    run_batch,
)
from bench.meter import Usage
from bench.plot import write_plot
from bench.simulation import SCENARIOS, Load, simulate
from bench.stack import empty, input_file, upload
from tests.e2e.conftest import ENDED, Local, wait_for

SIZES = (1_000, 4_000, 50_000)
# The latency with which the smallest is run: it takes ten seconds only.
REAL_MS = SECONDS_PER_LINE * 1000
TOLERANCE = 0.15
# So many batches share a route, with so many lines in all.
MANY, MANY_LINES = 20, 40_000

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Scaled:
    """A batch of ``lines`` lines as counted, and its time and cost at ten seconds a line."""

    lines: int
    counted: Usage
    seconds: float
    dollars: float
    other_dollars: float  # state transitions, and functions other than RunChunk
    chunk_dollars: float  # the chunk alone

    @property
    def milliseconds_a_line(self) -> float:
        return 1000 * self.seconds / self.lines

    @property
    def dollars_a_million(self) -> float:
        return 1e6 * self.dollars / self.lines

    def rows(self) -> Rows:
        fixed = self.counted.took - math.ceil(self.lines / layout.WORKER_CONCURRENCY) * self.counted.latency
        name, million = f"{self.lines:,} lines", 1e6 / self.lines
        return [
            row(f"{name}: took, at {self.counted.latency:g} s an answer", self.counted.took, "s"),
            row(f"{name}: of it not the requests", fixed, "s"),
            row(f"{name}: at 10 s an answer", self.seconds, "s"),
            row(f"{name}: a line, at 10 s an answer", self.milliseconds_a_line, "ms"),
            row(f"{name}: $ per 1M lines", self.dollars_a_million, "$"),
            row(f"{name}: of it state transitions and the other functions", million * self.other_dollars, "$"),
            row(f"{name} in one chunk: $ per 1M lines, the chunk alone", million * self.chunk_dollars, "$"),
        ]


def scale(lines: int, counted: Usage, memory: dict[str, float]) -> Scaled:
    """Compute time and cost at ten seconds a line from what a batch has used."""
    scaled = at_latency(counted, lines, SECONDS_PER_LINE)
    used = amounts(scaled, memory)
    prices = dollars(used)
    # The transitions of a chunk: its start, its end, and two for each slice.
    of_chunk = {key: amount for key, amount in used.items() if key[1] == "RunChunk"} | {
        ("state_transition", "RunChunk"): 2 + 2 * scaled.slices.total()
    }
    return Scaled(
        lines,
        counted,
        seconds=counted.took - counted.seconds["RunChunk"] + scaled.seconds["RunChunk"],
        dollars=sum(prices.values()),
        other_dollars=prices["state_transition"] + prices["lambda_gb_second"],
        chunk_dollars=sum(dollars(of_chunk).values()),
    )


def run_sizes(sizes: tuple[int, ...]) -> tuple[list[Scaled], dict[str, float], dict[int, float]]:
    """Run a batch of each size; also the memory of each function in GB, and the seconds of batches that run at once."""
    batches = []
    with cost.running("scale", SHORT_MS, REAL_MS) as (local, meter, [url, real_url]):
        memory = memory_of(local)
        run_batch(local, meter, 100, SHORT_MS, url)  # the cold start of every function
        for lines in sizes:
            latency_ms, asked = (REAL_MS, real_url) if lines == SIZES[0] else (SHORT_MS, url)
            counted = run_batch(local, meter, lines, latency_ms, asked, polls_of(lines))
            batches.append(scale(lines, counted, memory))
            print(f"  {lines}: {counted.took:.1f} s", file=sys.stderr, flush=True)
        together = {count: run_together(local, url, count, MANY_LINES // count) for count in (1, MANY)}
    return batches, memory, together


def run_together(local: Local, url: str, count: int, lines: int) -> float:
    """Run ``count`` batches of ``lines`` lines at once on one route. Returns the seconds until the last has ended."""
    routes.apply([cost.route_to(url)])
    file_id = upload(local, input_file(lines, cost.LINE_BYTES, cost.MODEL))
    started = time.monotonic()

    def create(_: int) -> str:
        return local.client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        ).id

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(create, range(count)))
    for batch_id in ids:
        ended = wait_for(partial(_ended, local, batch_id), 900)
        assert ended.request_counts is not None
        assert ended.request_counts.completed == lines, ended
    took = time.monotonic() - started
    empty(local)
    return took


def _ended(local: Local, batch_id: str) -> Batch | None:
    found = local.client.batches.retrieve(batch_id)
    return found if found.status in ENDED else None


def _at_10(took: float) -> float:
    """The seconds of ``MANY_LINES`` at ten seconds an answer, if they took so long at ``SHORT_MS``."""
    return took + MANY_LINES / layout.WORKER_CONCURRENCY * (SECONDS_PER_LINE - SHORT_MS / 1000)


def load_rows(name: str, load: Load) -> Rows:
    refusals = ("workers at once", "new workers in ten seconds")
    return [
        row(f"{name}: minutes", load.seconds / 60, "min"),
        *(row(f"{name}: starts refused, {why}", load.refused[why], "") for why in refusals),
        *(row(f"{name}: {what}, of the quota", share, "") for what, share in load.shares().items()),
    ]


def targets(batches: list[Scaled], together: Mapping[int, float], million: Load) -> list[dict[str, Any]]:
    """Time and cost of a line against those of the largest batch; of twenty batches, against one of as many lines."""
    *smaller, largest = batches

    def target(what: str, batch: Scaled, ratio: float) -> dict[str, Any]:
        name = f"{what}, {batch.lines:,} lines against {largest.lines:,}"
        return report.target(name, ratio, 1 + TOLERANCE, at_least=False)

    ratios: dict[str, Callable[[Scaled], float]] = {
        "time a line": lambda batch: batch.milliseconds_a_line / largest.milliseconds_a_line,
        "cost a line": lambda batch: batch.dollars_a_million / largest.dollars_a_million,
    }
    found = [target(what, batch, ratio(batch)) for batch in smaller for what, ratio in ratios.items()]
    flat, quota = _at_10(together[MANY]) / _at_10(together[1]), max(million.shares().values())
    thousand = batches[0].dollars_a_million
    return [
        *found,
        report.target("$ per 1M lines in batches of 1,000", thousand, 0.25, at_least=False),
        report.target("time a line, 20 batches on a route against one", flat, 1 + TOLERANCE, at_least=False),
        report.target("a million lines in 20 batches: share of the quota used most", quota, 1, at_least=False),
    ]


def main() -> None:
    sizes = SIZES[:2] if "--quick" in sys.argv else SIZES
    batches, memory, together = run_sizes(sizes)
    loads = {
        name: simulate(count, 50_000, concurrency, quotas) for name, (count, concurrency, quotas) in SCENARIOS.items()
    }
    rows = [row for batch in batches for row in batch.rows()]
    rows += [
        row(f"{count} batches of {MANY_LINES // count:,} lines at once on a route: {what}", seconds, "s")
        for count, took in together.items()
        for what, seconds in ((f"took, at {SHORT_MS / 1000:g} s an answer", took), ("at 10 s an answer", _at_10(took)))
    ]
    rows += [row for name, load in loads.items() for row in load_rows(name, load)]
    if sizes == SIZES:
        times = [(float(batch.lines), batch.milliseconds_a_line) for batch in batches]
        costs = [(float(batch.lines), batch.dollars_a_million) for batch in batches]
        write_plot(times, costs, loads)
        cost.publish(batches[-1].counted, memory)
    million = loads["20 x 50,000 on one route of 10,000"]
    report.publish("scale", rows, targets(batches, together, million), report.versions("aiohttp", "boto3"))


if __name__ == "__main__":
    main()
