"""Until when a slice starts requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.chunks.tail import Latencies, Tail, request_seconds

from bench import tails


def latencies(*seconds: float) -> Latencies:
    known = Latencies()
    for each in seconds:
        known.add(each)
    return known


@given(st.lists(st.floats(0.001, 900), min_size=20, max_size=200), st.floats(0.05, 1))
def test_a_quantile_is_right_within_an_eighth(seconds: list[float], share: float) -> None:
    quantile = latencies(*seconds).quantile(share)
    assert quantile is not None
    within = sum(each <= quantile * 1.125 for each in seconds)
    assert within >= share * len(seconds) - 1e-6
    assert min(seconds) / 1.125 <= quantile <= max(seconds) * 1.125


def test_few_answers_count_double() -> None:
    assert latencies(3.0).quantile(0.9) == pytest.approx(6.0, rel=0.13)
    assert Latencies().quantile(0.9) is None


@given(st.lists(st.floats(0.001, 900), max_size=100))
def test_what_was_carried_still_counts(seconds: list[float]) -> None:
    again = Latencies(latencies(*seconds).carry())
    assert (again.quantile(0.9) is None) == (not seconds)


def test_answers_come_at_the_rate_so_far() -> None:
    assert latencies(*[2.0] * 50).answers_within(6.0, in_flight=64) == pytest.approx(192, rel=0.1)
    assert latencies().answers_within(6.0, in_flight=64) == 0.0


def test_without_answers_a_request_may_take_all_of_its_time() -> None:
    assert Tail(880.0, 600.0, 0.0, Latencies()).last_start_at == 280.0


def test_with_answers_starts_go_on_until_most_would_be_late() -> None:
    tail = Tail(880.0, 600.0, 0.0, latencies(*[10.0] * 90, *[100.0] * 10))
    assert 860.0 < tail.last_start_at < 880.0


@given(st.floats(1, 900), st.floats(0, 899), st.floats(0.001, 10_000))
def test_a_part_of_what_is_left_is_always_used(timeout: float, began_at: float, latency: float) -> None:
    tail = Tail(900.0, timeout, began_at, latencies(*[latency] * 30))
    assert began_at < tail.last_start_at <= 900.0


def test_a_request_fits_into_a_slice() -> None:
    assert request_seconds(60, 880.0) == 60
    assert request_seconds(900, 880.0) == pytest.approx(792.0)
    assert request_seconds(900, -5.0) > 0


def test_a_worker_with_a_long_tail_is_nearly_full() -> None:
    """The judged case: median 10 s, p99 120 s."""
    work = tails.run(10, 120, slices=4)
    assert work.share >= 0.85
    assert work.cut / work.sent <= 0.02
