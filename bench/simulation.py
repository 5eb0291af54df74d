"""A simulation of many batches that are created at the same time, against the default quotas of AWS.

The workers use what `bench.scale` counts, and Step Functions starts them as fast as the quotas allow.
"""

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from nightshift.engine.slice import LIMITS
from nightshift.input import layout

from bench.cost import INVOCATION_SECONDS, LINE_BYTES, SECONDS_PER_LINE

TIMEOUT_SECONDS = 600.0  # the default timeout of a route

TRANSITIONS = "Step Functions: state transitions a second"
MAP_RUNS = "Step Functions: open map runs"
S3_PUTS = "S3: PUTs a second, were all of it one prefix"
S3_GETS = "S3: GETs and HEADs a second, were all of it one prefix"
TABLE_WRITES = "DynamoDB: writes a second to Batches"
PARTITION_WRITES = "DynamoDB: writes a second of one batch"
PARTITION_READS = "DynamoDB: reads a second of one account's batches"
WORKERS = "Lambda: workers at once"


@dataclass(frozen=True, slots=True)
class Quotas:
    """The default quotas of an AWS account in us-east-1. docs/scale.md names the sources."""

    lambda_concurrency: int = 1_000
    lambda_scaling: float = 100.0  # new environments a second, for each function: 1,000 every ten seconds
    transitions: float = 5_000.0  # a second
    executions: float = 300.0  # started a second, after a burst of 1,300
    map_runs: int = 1_000
    map_children: int = 40  # MaxConcurrency of the state machine's Map
    s3_puts: float = 3_500.0  # a second and prefix
    s3_gets: float = 5_500.0
    table_writes: float = 4_000.0  # a new on-demand table
    partition_writes: float = 1_000.0
    partition_reads: float = 3_000.0


@dataclass
class Load:
    """What the simulated batches use in each second, and how long they take."""

    quotas: Quotas
    seconds: float = 0
    most_workers: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # refused starts, by reason
    used: dict[str, defaultdict[int, float]] = field(default_factory=dict)  # by quota and second

    def use(self, what: str, at: float, amount: float = 1) -> None:
        self.used.setdefault(what, defaultdict(float))[int(at)] += amount

    def use_steadily(self, what: str, start: float, end: float, rate: float) -> None:
        for second in range(int(start), math.ceil(end)):
            self.use(what, second, rate)

    def shares(self) -> dict[str, float]:
        """The share of each quota that its busiest second uses."""
        limits = {
            TRANSITIONS: self.quotas.transitions,
            MAP_RUNS: self.quotas.map_runs,
            S3_PUTS: self.quotas.s3_puts,
            S3_GETS: self.quotas.s3_gets,
            TABLE_WRITES: self.quotas.table_writes,
            PARTITION_WRITES: self.quotas.partition_writes,
            PARTITION_READS: self.quotas.partition_reads,
        }
        return {WORKERS: self.most_workers / self.quotas.lambda_concurrency} | {
            what: max(self.used[what].values()) / limit for what, limit in limits.items()
        }


class Start(NamedTuple):
    """A worker's start at a time, for the ``lines`` that its chunk has left. ``order`` breaks ties."""

    at: float
    order: int
    batch: int
    chunk: int
    lines: int
    refusals: int


class Lambda:
    """Which starts Lambda accepts, by the number of busy workers and the rate of new environments."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._busy_until: list[float] = []
        self._environments = 0
        self._allowance = quotas.lambda_scaling * 10
        self._clock = 0.0

    @property
    def workers(self) -> int:
        return len(self._busy_until)

    def refusal(self, at: float) -> str | None:
        """Why a start at ``at`` is refused; None if it is accepted. Starts come in the order of time."""
        while self._busy_until and self._busy_until[0] <= at:
            heapq.heappop(self._busy_until)
        burst = self._quotas.lambda_scaling * 10
        self._allowance = min(burst, self._allowance + (at - self._clock) * self._quotas.lambda_scaling)
        self._clock = at
        if self.workers >= self._quotas.lambda_concurrency:
            return "workers at once"
        if self.workers >= self._environments:
            if self._allowance < 1:
                return "new workers in ten seconds"
            self._environments += 1
            self._allowance -= 1
        return None

    def run(self, end: float) -> None:
        heapq.heappush(self._busy_until, end)


class Simulation:
    """Batches of ``lines`` that are created in the same second, all on routes with this ``max_concurrency``.

    Each chunk is cut by the real layout and worked on in slices, as in ``bench.cost.at_latency``.
    """

    def __init__(self, batches: int, lines: int, max_concurrency: int, quotas: Quotas) -> None:
        self._quotas = quotas
        self._segments = layout.segments([LINE_BYTES * (line + 1) for line in range(lines)])
        self._chunks = layout.chunks(self._segments, max_concurrency)
        self._in_flight = layout.chunk_concurrency(max_concurrency, len(self._chunks))
        sending = INVOCATION_SECONDS - LIMITS.slice_margin_seconds - TIMEOUT_SECONDS
        self._slice_lines = self._in_flight * (math.floor(sending / SECONDS_PER_LINE) + 1)
        self._load = Load(quotas)
        self._lambda = Lambda(quotas)
        self._random = random.Random(1)
        self._order = itertools.count(1)
        self._starts: list[Start] = []
        self._waiting = [list(range(len(self._chunks))) for _ in range(batches)]
        self._ends = [0.0] * batches

    def run(self) -> Load:
        self._create_batches()
        while self._starts:
            start = heapq.heappop(self._starts)
            refusal = self._lambda.refusal(start.at)
            if refusal:
                self._retry(start, refusal)
            else:
                self._run_slice(start)
        for end in self._ends:
            # FinalizeBatch reads every segment, within two seconds.
            self._load.use_steadily(S3_GETS, end, end + 2, len(self._segments))
            self._load.use_steadily(MAP_RUNS, 2, end, 1)
        self._load.seconds = max(self._ends)
        return self._load

    def _create_batches(self) -> None:
        for batch in range(len(self._waiting)):
            # Created as fast as executions may start. The Map starts two seconds later.
            at = max(0.0, batch - 1_300) / self._quotas.executions + 2.0
            self._load.use(TRANSITIONS, at, 3)
            for _ in range(min(self._quotas.map_children, len(self._chunks))):
                self._start_next_chunk(at, batch)

    def _start_next_chunk(self, at: float, batch: int) -> None:
        if self._waiting[batch]:
            number = self._waiting[batch].pop(0)
            self._load.use(TRANSITIONS, at, 2)
            self._push(at, batch, number, sum(segment.lines for segment in self._chunks[number]))

    def _push(self, at: float, batch: int, number: int, lines: int, refusals: int = 0) -> None:
        heapq.heappush(self._starts, Start(at, next(self._order), batch, number, lines, refusals))

    def _retry(self, start: Start, refusal: str) -> None:
        """Start again as the state machine does: after 2 s, then 1.5 times longer up to 60 s, with full jitter."""
        self._load.refused[refusal] += 1
        pause = self._random.random() * min(60.0, 2 * 1.5 ** min(start.refusals, 20))
        self._load.use(TRANSITIONS, start.at + pause)
        self._push(start.at + pause, start.batch, start.chunk, start.lines, start.refusals + 1)

    def _run_slice(self, start: Start) -> None:
        lines = min(start.lines, self._slice_lines)
        # A second to start, the rounds of requests, and the delay of the last answer.
        rounds = math.ceil(lines / self._in_flight)
        end = start.at + 1.0 + (rounds + self._random.random()) * SECONDS_PER_LINE
        self._lambda.run(end)
        self._load.most_workers = max(self._load.most_workers, self._lambda.workers)
        self._count_slice(start, end)
        if start.lines > lines:
            self._push(end, start.batch, start.chunk, start.lines - lines)
        else:
            self._start_next_chunk(end, start.batch)
            self._ends[start.batch] = max(self._ends[start.batch], end)

    def _count_slice(self, start: Start, end: float) -> None:
        saves = 1 / LIMITS.store_seconds
        for what, rate in ((WORKERS, 1.0), (S3_PUTS, saves), (TABLE_WRITES, saves), (PARTITION_READS, saves)):
            self._load.use_steadily(what, start.at, end, rate)
        if start.batch == 0:
            self._load.use_steadily(PARTITION_WRITES, start.at, end, saves)
        self._load.use(S3_GETS, start.at, len(self._chunks[start.chunk]) + 2)
        self._load.use(TRANSITIONS, end, 2)


def simulate(batches: int, lines: int, max_concurrency: int, quotas: Quotas) -> Load:
    return Simulation(batches, lines, max_concurrency, quotas).run()


SCENARIOS = {
    "20 x 50,000 on one route of 10,000": (20, 500, Quotas()),
    "100 x 50,000, 1,000 in flight for each": (100, 1_000, Quotas()),
    "100 x 50,000, 2,400 for each": (100, 2_400, Quotas()),
    "100 x 50,000, 10,000 for each": (100, 10_000, Quotas()),
    "100 x 50,000, 10,000 for each, half of them in a second account": (50, 10_000, Quotas()),
}
