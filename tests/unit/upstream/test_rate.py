"""A worker's part of a route's requests and tokens a minute."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.upstream.rate import SAVED_SECONDS, RateBudget, needed_tokens, used_tokens


def starts(rates: RateBudget, seconds: float, tokens: int = 0, patience: float = 0.0) -> list[float]:
    """When requests start that are sent as soon as the rates allow, or ``patience`` seconds later."""
    now, times = 100.0, []
    while (now := max(now, rates.ready_at(now)) + patience) < 100.0 + seconds:
        rates.take(tokens, now)
        times.append(now)
    return times


@given(rate=st.integers(1, 100_000), patience=st.floats(0.001, 3))
def test_no_window_has_more_requests_than_the_rate(rate: int, patience: float) -> None:
    times = starts(RateBudget(rate), min(90.0, 3000 * 60 / rate), patience=0.0 if rate < 1000 else patience)
    for index, start in enumerate(times):
        within = [time for time in times[index:] if time < start + 60]
        assert len(within) <= rate * (60 + SAVED_SECONDS) / 60 + 1


def test_all_of_the_rate_is_used() -> None:
    assert len(starts(RateBudget(600), 60)) == pytest.approx(600, abs=12)
    assert len(starts(RateBudget(None, 60_000), 60, tokens=1000)) == pytest.approx(60, abs=2)


def test_without_rates_nothing_waits() -> None:
    rates = RateBudget()
    rates.take(10**9, 5.0)
    assert rates.ready_at(5.0) <= 5.0


def test_a_request_larger_than_a_minute_is_sent_and_paid_off() -> None:
    rates = RateBudget(None, 600)
    rates.take(6_000, 100.0)
    assert rates.ready_at(100.0) == pytest.approx(700.0, abs=1.1)


def test_what_an_answer_reports_replaces_the_estimate() -> None:
    rates = RateBudget(None, 600)
    rates.take(1_000, 100.0)
    rates.correct(1_000, 100, 101.0)
    assert rates.ready_at(101.0) < 112.0
    rates.correct(1_000, None, 101.0)
    assert rates.ready_at(101.0) < 112.0


def test_another_part_of_the_rate_keeps_what_was_taken() -> None:
    rates = RateBudget(None, 6_000)
    rates.take(6_000, 100.0)
    rates.set_rates(None, 3_000, 100.0)
    assert rates.ready_at(100.0) == pytest.approx(220.0, abs=2.1)
    rates.set_rates(None, None, 100.0)
    assert rates.ready_at(100.0) == 100.0


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 70, "max_tokens": 50}, 70),
        ({"max_output_tokens": 60}, 60),
        ({}, 0),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": "many"}, 0),
    ],
)
def test_an_estimate_is_a_quarter_of_the_bytes_and_the_answer(body: dict[str, object], tokens: int) -> None:
    content = json.dumps(body | {"prompt": "x" * 400}).encode()
    assert needed_tokens(content) == len(content) // 4 + tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [(b'{"usage":{"total_tokens":7}}', 7), (b'{"usage":null}', None), (b"{}", None), (b'{"usage":"x"}', None)],
)
def test_the_tokens_that_an_answer_reports(body: bytes, tokens: int | None) -> None:
    assert used_tokens(body) == tokens
