"""The limit on requests in flight finds what the upstream takes, and single refusals do not collapse it."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.routes.level import Level
from nightshift.upstream.pacing import BACKOFF, MAX_RETRY_AFTER, Backoff, Pacer


class Always(random.Random):
    def random(self) -> float:
        return 0.5


@dataclass
class Trace:
    """A simulation's limit after each answer or refusal, and how many of both there were."""

    limits: list[tuple[float, int]] = field(default_factory=list)
    answered: int = 0
    refused: int = 0

    def mean_limit(self, since: float) -> float:
        return fmean(limit for now, limit in self.limits if now > since)


def simulate(
    pacer: Pacer, refused: Callable[[float, int], bool], seconds: float, latency: float = 1.0, seed: int = 0
) -> Trace:
    """Keep the pacer's limit in flight for ``seconds``.

    The upstream is ``refused(now, accepted)``: whether it refuses a request while it works on ``accepted`` others. A
    refusal takes a tenth of the time of an answer.
    """
    chance, trace = random.Random(seed), Trace()
    now, accepted = 0.0, 0
    flying: list[tuple[float, int, float, bool]] = []
    while now < seconds:
        while len(flying) < pacer.limit and now >= pacer.resume_at:
            refusal = refused(now, accepted)
            accepted += not refusal
            takes = latency * chance.uniform(0.5, 1.5) * (0.1 if refusal else 1.0)
            heapq.heappush(flying, (now + takes, len(trace.limits) * 1000 + len(flying), now, refusal))
        if not flying:
            now = pacer.resume_at
            continue
        now, _, started_at, refusal = heapq.heappop(flying)
        accepted -= not refusal
        if refusal:
            pacer.refused(started_at, now, None)
            trace.refused += 1
        else:
            pacer.answered(started_at)
            trace.answered += 1
        trace.limits.append((now, pacer.limit))
    return trace


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_to_a_bound(failures: int, chance: float) -> None:
    backoff = Backoff(base=0.5, longest=20.0)
    assert 0 <= backoff.delay(failures, chance) <= min(20.0, 0.5 * 2**failures)
    assert backoff.delay(failures, 0.0) == 0.0
    assert backoff.delay(1_000_000, chance) <= 20.0


events = st.lists(
    st.one_of(
        st.just("answer"),
        st.integers(1, 600),  # another ceiling
        st.tuples(st.floats(0, 5), st.none() | st.floats(0, 100)),  # a refusal: sent how long ago, Retry-After
    ),
    max_size=200,
)


levels = st.builds(Level, limit=st.floats(0.0001, 1), threshold=st.floats(0.0001, 1), refusals=st.integers(0, 50))


@given(ceiling=st.integers(1, 600), level=levels, happened=events)
def test_the_limit_stays_within_its_bounds(
    ceiling: int, level: Level, happened: list[str | int | tuple[float, float | None]]
) -> None:
    pacer, now = Pacer(ceiling, level, rng=random.Random(1)), 10.0
    for event in happened:
        now += 0.1
        if isinstance(event, str):
            pacer.answered(now - 0.1)
        elif isinstance(event, int):
            pacer.ceiling = ceiling = event
        else:
            age, retry_after = event
            assert pacer.refused(now - age, now, retry_after) >= now + (retry_after or 0.0)
        assert 1 <= pacer.limit <= ceiling


def test_without_refusals_the_limit_is_full() -> None:
    trace = simulate(Pacer(64), lambda *_: False, seconds=20)
    assert {limit for _, limit in trace.limits} == {64}


def test_one_round_of_refusals_halves_once() -> None:
    pacer = Pacer(256, rng=Always())
    for _ in range(256):
        pacer.refused(0.0, 1.0, None)
    assert pacer.limit == 128
    for _ in range(128):
        pacer.refused(1.5, 2.0, None)
    assert pacer.limit == 64


def test_few_refusals_lower_it_a_little() -> None:
    pacer = Pacer(256, rng=Always())
    for _ in range(230):
        pacer.answered(0.0)
    for _ in range(26):
        pacer.refused(0.0, 1.0, None)
    assert pacer.limit == pytest.approx(256 * (1 - 26 / 256 / 2), abs=1)


@pytest.mark.parametrize("ceiling", [4, 16, 64, 256])
def test_it_halves_once_per_round_trip(ceiling: int) -> None:
    pacer = Pacer(ceiling, rng=random.Random(1))
    trace = simulate(pacer, lambda *_: True, seconds=30, latency=10.0)
    cuts = [at for (_, before), (at, after) in pairwise(trace.limits) if after < before]
    # A refusal takes at least half a second in this simulation.
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(cuts))


@pytest.mark.parametrize("ceiling", [8, 16, 32, 64, 128, 256])
def test_random_refusals_do_not_collapse_it(ceiling: int) -> None:
    def mean_limit(seed: int) -> float:
        noise = random.Random(seed)
        trace = simulate(Pacer(ceiling, rng=random.Random(2)), lambda *_: noise.random() < 0.05, seconds=200)
        return trace.mean_limit(since=30)

    assert fmean(map(mean_limit, range(5))) >= ceiling / 3


@pytest.mark.parametrize("capacity", [4, 10, 20, 50, 200])
def test_settles_near_the_upstreams_capacity(capacity: int) -> None:
    pacer = Pacer(256, rng=random.Random(3))
    trace = simulate(pacer, lambda _, accepted: accepted >= capacity, seconds=200)
    assert trace.answered >= 0.5 * capacity * 200
    if capacity >= pacer.ceiling / 16:
        assert trace.refused <= trace.answered


def test_an_outage_leaves_single_requests() -> None:
    pacer = Pacer(256, rng=random.Random(4))
    trace = simulate(pacer, lambda *_: True, seconds=120)
    assert pacer.limit == 1
    assert len([now for now, _ in trace.limits if now > 60]) < 30


def test_the_limit_recovers_after_an_outage() -> None:
    pacer = Pacer(256, rng=random.Random(5))
    trace = simulate(pacer, lambda now, _: now < 30, seconds=120)
    first_answer = next(now for now, limit in trace.limits if now >= 30 and limit > 1)
    back = next(now for now, limit in trace.limits if limit == 256 and now > first_answer)
    # A round is about a second; doubling takes eight of them, and the last half may be regained in sixteenths.
    assert back - first_answer < 30


def test_another_pacer_goes_on_from_the_level() -> None:
    first = Pacer(256, rng=Always())
    first.refused(0.0, 10.0, 7.5)
    for _ in range(255):
        first.refused(0.0, 10.0, 7.5)
    again = Pacer(64, first.level)
    assert (again.limit, again.resume_at, again.refusals) == (32, first.resume_at, first.refusals)


def test_it_grows_in_proportion_to_the_level() -> None:
    """After a cut, a level of 10 of 10,000 does not jump to what the ceiling would suggest."""
    pacer = Pacer(10_000, Level(limit=0.001, threshold=0.0005))
    for _ in range(100):
        pacer.answered(1.0)
    assert 10 <= pacer.limit <= 12


def test_retry_after_pauses_all_lines() -> None:
    pacer = Pacer(1)
    assert pacer.refused(0.0, 10.0, 7.5) == 17.5
    assert pacer.resume_at == 17.5


def test_a_shorter_pause_changes_nothing() -> None:
    pacer = Pacer(1)
    pacer.refused(0.0, 10.0, 30.0)
    pacer.refused(11.0, 12.0, 1.0)
    assert pacer.resume_at == 40.0


def test_a_single_refusal_delays_one_line() -> None:
    pacer = Pacer(256, rng=Always())
    for _ in range(100):
        pacer.answered(0.0)
    assert pacer.refused(0.0, 1.0, 9.0) == 10.0
    assert (pacer.limit, pacer.resume_at, pacer.refusals) == (256, 0.0, 0)


def test_refusals_before_a_cut_do_not_cut() -> None:
    pacer = Pacer(1, rng=Always())
    pacer.refused(0.0, 1.0, 20.0)
    before = (pacer.limit, pacer.resume_at, pacer.refusals)
    assert pacer.refused(0.5, 1.5, 1.0) == 21.0
    assert (pacer.limit, pacer.resume_at, pacer.refusals) == before


def test_an_answer_resets_the_refusals() -> None:
    pacer = Pacer(1, rng=Always())
    for at in range(5):
        pacer.refused(at + 0.5, at + 1.0, None)
    assert pacer.refusals == 5
    pacer.answered(4.5)
    assert pacer.refusals == 5  # it was sent before the last cut
    pacer.answered(6.0)
    assert pacer.refusals == 0


def test_retry_after_is_bounded() -> None:
    pacer = Pacer(1)
    assert pacer.refused(0.0, 10.0, 86_400.0) == 10.0 + MAX_RETRY_AFTER
    assert pacer.resume_at == 10.0 + MAX_RETRY_AFTER


@pytest.mark.parametrize("asked", [0.0, 0.001])
def test_a_pause_is_at_least_the_backoff(asked: float) -> None:
    pacer, now = Pacer(1, rng=Always()), 0.0
    pauses = []
    for _ in range(12):
        again = pacer.refused(now, now, asked)
        pauses.append(again - now)
        now = again
    assert pauses[-1] == BACKOFF.longest / 2
    assert pacer.resume_at == now
