from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.chunks.permit import Permit
from nightshift.chunks.place import Place
from nightshift.routes.health import Health, trouble_of
from nightshift.routes.lease import LEASE_SECONDS, SKEW_SECONDS, Lease, held
from nightshift.routes.level import Level
from nightshift.routes.route import Route
from nightshift.routes.share import TURN_SECONDS
from nightshift.routes.state import View

from bench.fairness import MemoryState, many_batches, nine_batches, simulated_route

REVOKED = trouble_of(401, "Incorrect API key provided.")


@dataclass
class World:
    """One route, its state, and a clock."""

    limit: int = 64
    now: float = 1000.0
    state: MemoryState = field(default_factory=MemoryState)
    woken: list[str] = field(default_factory=list)
    rates: dict[str, int] = field(default_factory=dict)

    @property
    def route(self) -> Route:
        return msgspec.structs.replace(simulated_route("m", self.limit), **self.rates)

    def place(self, worker: str, account: str = "a", batch: str = "b", created: int = 0, skew: float = 0.0) -> Place:
        lease = Lease(
            worker=worker,
            account_id=account,
            batch_id=batch,
            batch_created_at=created,
            chunk=0,
            wanted=0,
            since=0.0,
            expires_at=0.0,
        )
        return Place(
            self.route, lease, self.state, lambda woken: self.woken.append(woken.batch_id), lambda: self.now + skew
        )


@pytest.fixture
def world() -> World:
    return World()


def test_first_worker_gets_all_it_wants(world: World) -> None:
    assert world.place("w").take(50).ceiling == 50


def test_a_worker_gets_its_part_of_the_rates(world: World) -> None:
    world.rates = {"requests_per_minute": 640, "tokens_per_minute": 6400}
    permit = world.place("w").take(16)
    assert (permit.requests_per_minute, permit.tokens_per_minute) == (640.0, 6400.0)
    permit = world.place("w2", "two", "b2").take(48)
    assert (permit.requests_per_minute, permit.tokens_per_minute) == (480.0, 4800.0)


def test_newcomer_waits_until_the_holder_gives_way(world: World) -> None:
    holder, newcomer = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    assert holder.take(200).ceiling == 64
    assert newcomer.take(200).ceiling == 0

    assert holder.take(200, in_use=64).ceiling == 32  # nothing new starts above that
    assert newcomer.take(200).ceiling == 0  # all 64 are still in flight
    holder.take(200, in_use=40)
    assert newcomer.take(200).ceiling == 24
    holder.take(200, in_use=32)
    assert newcomer.take(200).ceiling == 32


def test_lease_of_a_crashed_worker_is_free_soon(world: World) -> None:
    world.place("w1", "one", "b1").take(64)
    newcomer = world.place("w2", "two", "b2")
    assert newcomer.take(64).ceiling == 0
    world.now += LEASE_SECONDS
    assert newcomer.take(64).ceiling == 64


def test_next_slice_takes_the_lease_over(world: World) -> None:
    first = world.place("w1")
    first.take(64)
    first.leave("more")
    assert world.place("w2").take(64).ceiling == 64
    assert first.take(64).reason == "replaced"


def test_waiting_worker_keeps_its_place(world: World) -> None:
    world.place("w1", "one", "b1").take(64, in_use=64)
    waiting = world.place("w2", "one", "b2", created=5)
    permit = waiting.take(64)
    waiting.leave("wait", 64, permit.pause)
    (lease,) = [lease for lease in world.state.leases.values() if lease.batch_id == "b2"]
    assert (permit.reason, lease.granted, lease.wanted) == ("queue", 0, 64)
    assert lease.next_visit_at == world.now + permit.pause < lease.expires_at


def test_end_of_a_batch_wakes_the_next(world: World) -> None:
    running = world.place("w1", "one", "b1")
    running.take(64)
    for number in (2, 3):
        waiting = world.place(f"w{number}", "one", f"b{number}", created=number)
        waiting.leave("wait", 64, waiting.take(64).pause)
    running.leave("done")
    assert world.woken == ["b2"]


def test_the_next_batch_is_woken_before_the_last_one_ends(world: World) -> None:
    running, waiting = world.place("w1", "one", "b1"), world.place("w2", "one", "b2", created=2)
    running.take(64)
    permit = waiting.take(64)
    assert not permit.is_near
    waiting.leave("wait", 64, 60)

    running.take(64, in_use=64, wanted_soon=64)
    assert world.woken == []
    running.take(64, in_use=64, wanted_soon=10)
    assert world.woken == ["b2"]
    permit = world.place("w3", "one", "b2", created=2).take(64)
    assert (permit.ceiling, permit.is_near) == (0, True)  # all 64 are still in flight
    running.take(64, in_use=64, wanted_soon=10)
    assert running.take(64, in_use=64, wanted_soon=10).ceiling == 64  # until then nothing is taken away


def test_what_others_give_way_to_is_near(world: World) -> None:
    world.place("w1", "one", "b1").take(64, in_use=64)
    assert world.place("w2", "two", "b2").take(64).is_near


def test_one_worker_wakes_for_free_slots(world: World) -> None:
    first, second = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    first.take(32)
    second.take(32)
    waiting = world.place("w3", "three", "b3")
    waiting.leave("wait", 30, waiting.take(30).pause)
    second.take(2, in_use=2)
    first.take(32, in_use=32)
    second.take(2, in_use=2)
    assert world.woken == ["b3"]


def test_failing_wake_stops_nobody(world: World) -> None:
    running = world.place("w1", "one", "b1")
    running.take(64)
    waiting = world.place("w2", "one", "b2", created=2)
    waiting.leave("wait", 64, waiting.take(64).pause)

    def refuse(_: Lease) -> None:
        raise ConnectionError

    running._wake = refuse
    running.leave("done")


def test_pause_lets_requests_in_flight_end(world: World) -> None:
    place = world.place("w")
    place.take(64)
    world.state.control = "paused"
    permit = place.take(64, in_use=10)
    assert (permit.ceiling, permit.reason) == (0, "paused")
    assert permit.pause >= 300
    world.state.control = "open"
    assert place.take(64, in_use=3).ceiling == 64


def test_broken_route_sends_only_the_probe(world: World) -> None:
    one, two = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    one.take(64)
    two.take(64)
    pause = one.report(REVOKED)
    two.report(REVOKED)
    one.leave("wait", 64, pause)
    two.leave("wait", 64, pause)
    assert world.state.health.state == "broken"
    assert world.woken == []

    world.now += pause
    prober, other = world.place("w3", "one", "b1"), world.place("w4", "two", "b2")
    assert prober.take(64).ceiling == 1
    permit = other.take(64)
    assert (permit.ceiling, permit.reason) == (0, "broken")
    other.leave("wait", 64, permit.pause)

    world.now += 2.0
    assert prober.take(64, in_use=0, answered_at=world.now).ceiling == 32
    assert world.state.health == Health(since=world.now, revision=world.state.health.revision)
    assert world.woken == ["b2"]


def test_a_probe_that_ends_with_an_answer_is_told(world: World) -> None:
    """It may have answered all of its lines before its first tick."""
    one, two = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    one.take(64)
    pause = one.report(REVOKED)
    one.leave("wait", 64, pause)
    two.leave("wait", 64, two.take(64).pause)
    world.now += pause
    prober = world.place("w3", "one", "b1")
    assert prober.take(64).probe
    prober.leave("done", answered_at=world.now + 1.0)
    assert world.state.health.trouble is None
    assert world.woken == ["b2"]


def test_suspicion_ends_with_an_answer_to_another(world: World) -> None:
    one, two = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    one.take(32)
    two.take(32)
    one.report(REVOKED)
    assert two.take(32, in_use=32).ceiling == 32
    assert world.state.health.trouble is not None
    two.take(32, in_use=32, answered_at=world.now + 1.0)
    assert world.state.health.trouble is None


def test_what_was_learned_is_shared(world: World) -> None:
    first, second = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    first.take(32, level=Level(limit=0.5, resume_at=1030.0))
    assert second.take(32).level == Level(limit=0.5, resume_at=1030.0, at=1000.0)
    # It is news once, and nobody's own news.
    assert second.take(32, level=Level(limit=0.5, resume_at=1030.0)).level is None
    assert first.take(32).level is None


def test_who_has_not_heard_the_news_does_not_overwrite_it(world: World) -> None:
    first, second = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    second.take(32, level=Level())
    first.take(32, level=Level(limit=0.25))
    news = second.take(32, level=Level(limit=1.0)).level
    assert news is not None
    assert news.limit == 0.25
    assert world.state.level.limit == 0.25


def test_old_news_is_none(world: World) -> None:
    world.place("w1", "one", "b1").take(32, level=Level(limit=0.5))
    world.now += 3600
    assert world.place("w2", "two", "b2").take(32).level is None


def test_accounts_take_turns_on_a_small_route(world: World) -> None:
    world.limit = 32
    first, second = world.place("w1", "one", "b1"), world.place("w2", "two", "b2")
    in_use = first.take(32).ceiling
    world.now += 1.0
    second.take(32)
    world.now += 1.0
    for _ in range(int(TURN_SECONDS / 4)):
        assert first.take(32, in_use=in_use).ceiling == 32  # its turn began when somebody came to wait
        assert second.take(32).ceiling == 0
        world.now += 4.0
    assert first.take(32, in_use=in_use).ceiling == 0
    assert first.take(32, in_use=0).ceiling == 0
    assert second.take(32).ceiling == 32


# --- races ----------------------------------------------------------------------------------------------------------


class RacyState(MemoryState):
    """Lets others act between a worker's read and its write."""

    def __init__(self) -> None:
        super().__init__()
        self.between: list[Callable[[], None]] = []

    def read(self) -> View:
        view = super().read()
        if self.between:
            self.between.pop()()
        return view


@dataclass
class Racer:
    """A worker as a run uses it: it sends up to its ceiling until its permit is over."""

    world: World
    number: int
    skew: float
    runs: int = 0
    place: Place | None = None
    permit: Permit = field(default_factory=lambda: Permit(0))
    in_use: int = 0

    def tick(self, wanted: int) -> None:
        if self.place is None:
            self.runs += 1
            name = f"{self.number}-{self.runs}"
            self.place = self.world.place(name, f"a{self.number % 3}", f"b{self.number}", self.number, self.skew)
        self.lapse()
        place = self.place
        permit = place.take(wanted, self.in_use)
        if self.place is place:
            self.permit = permit
            self.in_use = min(max(self.in_use, min(wanted, permit.ceiling)), max(self.in_use, permit.ceiling))

    def answer(self, answers: int) -> None:
        self.in_use = max(0, self.in_use - answers)

    def crash(self) -> None:
        self.place, self.permit, self.in_use = None, Permit(0), 0

    def lapse(self) -> None:
        """A worker that could not renew its lease has nothing in flight when it ends."""
        if self.world.now + self.skew >= self.permit.until:
            self.in_use = 0


steps = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["tick", "tick", "answer", "crash", "race"]),
        st.integers(0, 80),
        st.floats(0, 9),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=200)
@given(steps, st.lists(st.floats(-SKEW_SECONDS / 2, SKEW_SECONDS / 2), min_size=6, max_size=6))
def test_never_more_in_flight_than_the_limit(steps: list[tuple[int, str, int, float]], skews: list[float]) -> None:
    state = RacyState()
    world = World(state=state)
    racers = [Racer(world, number, skew) for number, skew in enumerate(skews)]
    for number, step, amount, seconds in steps:
        world.now += seconds
        racer = racers[number]
        if step == "answer":
            racer.answer(amount)
        elif step == "crash":
            racer.crash()
        else:
            if step == "race":
                other = racers[(number + 1 + amount % 5) % 6]
                state.between = [lambda other=other, amount=amount: other.tick(64 - amount % 60)]  # type: ignore[misc]
            racer.tick(amount)
            state.between = []
        for each in racers:
            each.lapse()
        assert sum(each.in_use for each in racers) <= world.limit
        assert sum(held(lease, world.now) for lease in state.leases.values()) <= world.limit


# --- the simulation -------------------------------------------------------------------------------------------------


def test_nine_batches_share_a_route() -> None:
    _, found = nine_batches()
    assert found["most"] <= 1.05
    assert found["sent"] <= 1.05
    assert found["time"] <= 1.2
    assert found["second"] <= 2.5


def test_killed_workers_change_neither_limit_nor_end() -> None:
    simulation, found = nine_batches(kill_every=4.0, seed=3)
    assert found["most"] <= 1.05
    assert all(job.ended_at is not None for job in simulation.jobs.values())


def test_accounts_are_served_fairly() -> None:
    simulation, found = many_batches(20, 4, 1, 64, 800, 1800, arrival=60)
    assert found["Jain"] >= 0.95
    assert found["used"] >= 0.95
    assert found["refused"] == 0.0
    simulation.run_to_end()
    assert all(job.ended_at is not None for job in simulation.jobs.values())
