"""Many batches on few routes: does every account get its share, and is the provider used and not flooded?

A simulation in which the real `Place`, `share_out` and `Pacer` work on a state in memory. Only the provider, Step
Functions and the clock are models. `make bench-fairness` runs it.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from nightshift.chunks.place import Place
from nightshift.chunks.tail import Latencies
from nightshift.engine.slice import LOOK_SECONDS, NEAR_SECONDS
from nightshift.routes.health import Control, Health
from nightshift.routes.lease import NEWCOMER_SECONDS, Lease
from nightshift.routes.level import Level
from nightshift.routes.route import Route, Sku
from nightshift.routes.state import View
from nightshift.upstream.pacing import Pacer

from bench import report

TICK_SECONDS = 4.0
SLICE_SECONDS = 880.0
START_SECONDS = 1.0  # from a wait that is over, or a wake, to a worker that runs
WORKER = 256  # requests in flight of one worker at most


class MemoryState:
    """The shared state of one route in memory, with the conditions of the table."""

    def __init__(self) -> None:
        self.leases: dict[tuple[str, int], Lease] = {}
        self.turns: dict[str, float] = {}
        self.version = 0
        self.health = Health()
        self.control: Control = "open"
        self.level = Level()
        self.writes: Counter[str] = Counter()

    def read(self) -> View:
        self.writes["read"] += 1
        return View(list(self.leases.values()), dict(self.turns), self.version, self.health, self.control, self.level)

    def put(self, lease: Lease, before: Lease | None) -> bool:
        self.writes["put"] += 1
        if self.leases.get(lease.key) != before:
            return False
        self.leases[lease.key] = lease
        return True

    def grow(self, lease: Lease, before: Lease | None, version: int) -> bool:
        self.writes["grow"] += 1
        if self.version != version or self.leases.get(lease.key) != before:
            return False
        self.version += 1
        self.leases[lease.key] = lease
        return True

    def drop(self, lease: Lease) -> None:
        found = self.leases.get(lease.key)
        if found is not None and found.worker == lease.worker:
            del self.leases[lease.key]

    def begin_turn(self, account_id: str, now: float) -> None:
        self.writes["turn"] += 1
        self.turns[account_id] = now

    def put_health(self, health: Health) -> bool:
        if health.revision != self.health.revision + 1:
            return False
        self.health = health
        return True

    def put_level(self, level: Level) -> None:
        self.level = level


def simulated_route(name: str, limit: int) -> Route:
    return Route(
        model=name, provider="p", base_url="https://p.test", upstream_model=name, sku=Sku("s"), max_concurrency=limit
    )


@dataclass(slots=True)
class Job:
    """A batch of one chunk."""

    name: str
    account: str
    weight: int
    route: int
    created_at: float
    lines: int
    ended_at: float | None = None
    running: "Worker | None" = None
    visit: int = 0  # the number of the visit that counts; a wake makes the one that was planned void


@dataclass(slots=True)
class Provider:
    """Serves ``capacity`` requests at once and refuses more."""

    route: Route
    capacity: int
    state: MemoryState = field(default_factory=MemoryState)
    in_flight: int = 0
    most: int = 0
    sent: int = 0
    refused: int = 0
    used: float = 0.0  # in flight times seconds
    since: float = 0.0

    def change(self, by: int, now: float) -> None:
        self.used += self.in_flight * (now - self.since)
        self.since = now
        self.in_flight += by
        self.most = max(self.most, self.in_flight)


class Simulation:
    """Runs ``jobs`` on ``providers``. ``latency`` draws the seconds of an answer; ``kills`` workers die an hour."""

    def __init__(
        self,
        providers: list[Provider],
        jobs: list[Job],
        latency: Callable[[random.Random], float],
        *,
        seed: int = 1,
        kill_every: float | None = None,
    ) -> None:
        self.providers = providers
        self.jobs = {job.name: job for job in jobs}
        self.rng = random.Random(seed)
        self.latency = latency
        self.now = 0.0
        self.answered: Counter[str] = Counter()
        self.visits = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for job in jobs:
            self.at(job.created_at, lambda job=job: self.visit(job, 0))  # type: ignore[misc]
        if kill_every:
            self.at(kill_every, lambda: self.kill(kill_every))

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), action))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until
        for provider in self.providers:
            provider.change(0, until)

    def run_to_end(self) -> float:
        """Run until every batch has ended; returns when."""
        while self._events and any(job.ended_at is None for job in self.jobs.values()):
            self.now, _, action = heapq.heappop(self._events)
            action()
        for provider in self.providers:
            provider.change(0, self.now)
        return max(job.ended_at or float("inf") for job in self.jobs.values())

    def visit(self, job: Job, number: int) -> None:
        if number == job.visit and job.ended_at is None and job.running is None:
            self.visits += 1
            job.running = Worker(self, job, f"{job.name}-{self.visits}")
            job.running.tick()

    def plan_visit(self, job: Job, seconds: float) -> None:
        job.visit += 1
        self.at(self.now + seconds, lambda number=job.visit: self.visit(job, number))  # type: ignore[misc]

    def wake(self, lease: Lease) -> None:
        job = self.jobs[lease.batch_id]
        if job.running is None and job.ended_at is None:
            self.plan_visit(job, START_SECONDS)

    def kill(self, every: float) -> None:
        running = [job for job in self.jobs.values() if job.running]
        if running:
            worker = self.rng.choice(running).running
            assert worker is not None
            worker.die()
        self.at(self.now + every, lambda: self.kill(every))


class Worker:
    """One slice of one batch."""

    def __init__(self, simulation: Simulation, job: Job, name: str) -> None:
        self.simulation = simulation
        self.job = job
        self.provider = simulation.providers[job.route]
        now = simulation.now
        lease = Lease(
            worker=name,
            account_id=job.account,
            weight=job.weight,
            batch_id=job.name,
            batch_created_at=int(job.created_at),
            chunk=0,
            wanted=0,
            since=now,
            expires_at=0.0,
        )
        self.place = Place(self.provider.route, lease, self.provider.state, simulation.wake, lambda: simulation.now)
        self.pacer: Pacer | None = None
        self.ceiling = 0
        self.in_flight = 0
        self.answered_at = 0.0
        self.latencies = Latencies()
        self.stays_until = now + NEAR_SECONDS
        self.ends_at = now + SLICE_SECONDS
        self.pause = 0
        self.next_tick = 0.5
        self.over = False
        self.last_sent = False

    def tick(self) -> None:
        if self.over:
            return
        wanted = min(WORKER, self.job.lines + self.in_flight)
        level = self.pacer.level if self.pacer else None
        answers = self.latencies.answers_within(NEWCOMER_SECONDS, self.in_flight)
        wanted_soon = min(wanted, max(0, round(self.job.lines + self.in_flight - answers)))
        permit = self.place.take(wanted, self.in_flight, self.answered_at, level, wanted_soon)
        self.ceiling, self.pause = permit.ceiling, permit.pause
        if permit.ceiling:
            self.set_ceiling(permit.ceiling)
        elif self.pacer is None and permit.is_near and self.simulation.now < self.stays_until:
            self.simulation.at(self.simulation.now + LOOK_SECONDS, self.tick)
            return
        if self.pacer and permit.level:
            self.pacer.adopt(permit.level)
        self.send()
        if not self.ended():
            pause = min(TICK_SECONDS, self.next_tick)
            self.next_tick *= 2
            self.simulation.at(self.simulation.now + pause, self.tick)

    def set_ceiling(self, ceiling: int) -> None:
        if self.pacer is None:
            self.pacer = Pacer(ceiling, rng=self.simulation.rng)
        self.pacer.ceiling = ceiling

    def send(self) -> None:
        simulation, provider, now = self.simulation, self.provider, self.simulation.now
        pacer = self.pacer
        may_start = pacer is not None and self.ceiling and now < self.ends_at
        while pacer and may_start and self.job.lines and self.in_flight < pacer.limit and now >= pacer.resume_at:
            self.job.lines -= 1
            self.in_flight += 1
            provider.sent += 1
            if provider.in_flight >= provider.capacity:
                provider.refused += 1
                simulation.at(now + 0.1, lambda: self.refused(now))
            else:
                provider.change(1, now)
                simulation.at(now + simulation.latency(simulation.rng), lambda: self.answered(now))
        if not self.job.lines and not self.last_sent:
            # What the last lines leave free is given back at once, and not at the next tick.
            self.last_sent = True
            simulation.at(now, self.give_back)

    def give_back(self) -> None:
        if not self.over:
            self.place.take(self.in_flight, self.in_flight, self.answered_at)

    def answered(self, started_at: float) -> None:
        self.provider.change(-1, self.simulation.now)
        if self.over:
            return  # The worker died: the line is still open.
        assert self.pacer is not None
        self.in_flight -= 1
        self.answered_at = self.simulation.now
        self.simulation.answered[self.job.account] += 1
        self.pacer.answered(started_at)
        self.latencies.add(self.simulation.now - started_at)
        self.send()
        self.ended()

    def refused(self, started_at: float) -> None:
        if self.over:
            return
        assert self.pacer is not None
        self.in_flight -= 1
        self.job.lines += 1
        until = self.pacer.refused(started_at, self.simulation.now, None)
        self.simulation.at(until, self.send)
        self.ended()

    def ended(self) -> bool:
        """End the slice if nothing is in flight and nothing may start."""
        simulation, job = self.simulation, self.job
        if self.over:
            return True
        if self.in_flight:
            return False
        if not job.lines:
            self.place.leave("done")
            job.ended_at = simulation.now
        elif simulation.now >= self.ends_at:
            self.place.leave("more")
            simulation.plan_visit(job, START_SECONDS)
        elif not self.ceiling:
            self.place.leave("wait", min(WORKER, job.lines), self.pause)
            simulation.plan_visit(job, self.pause)
        else:
            return False
        self.over, job.running = True, None
        return True

    def die(self) -> None:
        """Crash: Step Functions starts the next slice, and its lines are sent again."""
        self.over, self.job.running = True, None
        self.job.lines += self.in_flight
        self.simulation.plan_visit(self.job, START_SECONDS + 1.0)


def jain(figures: list[float]) -> float:
    """Jain's index of fairness: 1 if all figures are equal, 1/n if one has everything."""
    return sum(figures) ** 2 / (len(figures) * sum(each * each for each in figures))


def ten_seconds(rng: random.Random) -> float:
    return rng.lognormvariate(2.3, 0.4)


def many_batches(
    batches: int,
    accounts: int,
    routes: int,
    limit: int,
    lines: int,
    seconds: float,
    *,
    arrival: float = 600.0,
    seed: int = 1,
) -> tuple[Simulation, dict[str, float]]:
    """``batches`` of ``lines`` lines come within ``arrival`` seconds; what accounts get in the ``seconds`` after."""
    rng = random.Random(seed)
    providers = [Provider(msgspec.structs.replace(simulated_route(f"m{n}", limit)), limit) for n in range(routes)]
    jobs = [
        Job(f"b{n:04d}", f"a{n % accounts:02d}", 1, (n // accounts) % routes, rng.uniform(0, arrival), lines)
        for n in range(batches)
    ]
    simulation = Simulation(providers, jobs, ten_seconds, seed=seed)
    simulation.run(arrival)
    before = Counter(simulation.answered)
    used = sum(provider.used for provider in providers)
    simulation.run(arrival + seconds)
    gained = [float(simulation.answered[f"a{n:02d}"] - before[f"a{n:02d}"]) for n in range(accounts)]
    sent = sum(provider.sent for provider in providers)
    return simulation, {
        "Jain": jain(gained),
        "used": (sum(provider.used for provider in providers) - used) / (seconds * limit * routes),
        "refused": sum(provider.refused for provider in providers) / sent,
        "most": max(provider.most for provider in providers) / limit,
        "reads": sum(provider.state.writes["read"] for provider in providers),
        "least": min(gained) / max(gained),
    }


def nine_batches(*, kill_every: float | None = None, seed: int = 1) -> tuple[Simulation, dict[str, float]]:
    """Nine batches of 600 lines on a route of 64 that answers after half a second; the ninth is another account's."""
    provider = Provider(simulated_route("m", 64), 10_000)
    jobs = [Job(f"b{n}", "one", 1, 0, n * 0.1, 600) for n in range(8)] + [Job("b8", "two", 1, 0, 2.0, 600)]
    simulation = Simulation([provider], jobs, lambda _: 0.5, seed=seed, kill_every=kill_every)
    ended_at = simulation.run_to_end()
    second = simulation.jobs["b8"].ended_at
    assert second is not None
    return simulation, {
        "most": provider.most / 64,
        "sent": provider.sent / 5400,
        "time": ended_at / (5400 * 0.5 / 64),
        "second": (second - 2.0) / (600 * 0.5 / 32),
    }


def main() -> None:
    _, many = many_batches(300, 30, 3, 256, 2_000, 1_350)
    _, nine = nine_batches()
    _, killed = nine_batches(kill_every=15.0)
    runs = {"300 batches": many, "nine batches": nine, "nine batches, a worker killed every 15 s": killed}
    rows = [
        report.row(f"{run}: {name}", [figure], "") for run, figures in runs.items() for name, figure in figures.items()
    ]
    targets = [
        report.target("300 batches of 30 accounts on three routes: Jain fairness between accounts", many["Jain"], 0.95),
        report.target("… use of the providers", many["used"], 0.95),
        report.target("… refused requests", many["refused"], 0.02, at_least=False),
        report.target("nine batches on a route of 64: most in flight, x limit", nine["most"], 1.05, at_least=False),
        report.target("… requests for each line", nine["sent"], 1.05, at_least=False),
        report.target("… time, x ideal", nine["time"], 1.2, at_least=False),
        report.target("… the second account's batch, x its fair time", nine["second"], 2.5, at_least=False),
    ]
    report.publish("fairness", rows, targets, {})


if __name__ == "__main__":
    main()
