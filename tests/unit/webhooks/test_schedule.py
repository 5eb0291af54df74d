"""When a webhook is tried again, by the outcome of the last try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from nightshift.webhooks.outcome import Outcome
from nightshift.webhooks.schedule import MAX_DELAY_SECONDS, next_delay
from nightshift.webhooks.sender import WHOLE_SECONDS


@pytest.mark.parametrize(
    ("status", "accepted", "gone"),
    [
        (200, True, False),
        (204, True, False),
        (299, True, False),
        (410, False, True),
        (199, False, False),
        (300, False, False),
        (301, False, False),
        (404, False, False),
        (429, False, False),
        (500, False, False),
    ],
)
def test_a_status_is_accepted_gone_or_neither(status: int, accepted: bool, gone: bool) -> None:
    outcome = Outcome(status=status)
    assert (outcome.accepted, outcome.gone) == (accepted, gone)


def test_an_error_is_not_accepted_or_gone() -> None:
    outcome = Outcome(error="timeout")
    assert not outcome.accepted
    assert not outcome.gone


DELAYS = [5, 25, 90, 480, 3_000, 10_800, 28_860, 43_140]
FAILED = Outcome(status=500)


@pytest.mark.parametrize(
    ("outcome", "tries", "chance", "delay"),
    [
        (FAILED, 1, 0, 5),
        (FAILED, 1, 0.999, 5),
        (FAILED, 2, 0, 25),
        (FAILED, 2, 0.999, 27),
        (FAILED, 3, 0.5, 94),
        (FAILED, 7, 0, 28_860),
        (FAILED, 7, 0.5, 30_303),
        (FAILED, 8, 0, 43_140),
        (FAILED, 8, 0.5, MAX_DELAY_SECONDS),
        (FAILED, 9, 0, None),
        (FAILED, 10, 0, None),
        (Outcome(error="timeout"), 1, 0, 5),
        (Outcome(error="refused_address"), 8, 0, 43_140),
        (Outcome(status=301), 1, 0, 5),
        (Outcome(status=200), 1, 0, None),
        (Outcome(status=204, retry_after=60), 1, 0, None),
        (Outcome(status=410), 1, 0, None),
        (Outcome(status=410, retry_after=60), 1, 0, None),
        (Outcome(status=429, retry_after=60), 1, 0, 60),
        (Outcome(status=429, retry_after=60), 1, 0.999, 60),
        (Outcome(status=429, retry_after=1), 2, 0, 25),
        (Outcome(status=503, retry_after=0), 1, 0, 5),
        (Outcome(status=503, retry_after=10**9), 1, 0, MAX_DELAY_SECONDS),
        (Outcome(status=503, retry_after=1e300), 1, 0, MAX_DELAY_SECONDS),
        (Outcome(status=429, retry_after=60), 9, 0, None),
    ],
)
def test_the_next_delay(outcome: Outcome, tries: int, chance: float, delay: int | None) -> None:
    assert next_delay(outcome, tries, DELAYS, chance) == delay


@st.composite
def growing_delays(draw: st.DrawFn) -> list[int]:
    return sorted(draw(st.lists(st.integers(1, MAX_DELAY_SECONDS), min_size=1, max_size=12)))


chances = st.floats(0, 1, exclude_max=True)
failed_outcomes = st.one_of(
    st.sampled_from(["timeout", "connection_failed", "refused_address"]).map(lambda error: Outcome(error=error)),
    st.integers(300, 599).filter(lambda status: status != 410).map(lambda status: Outcome(status=status)),
)


@given(growing_delays(), failed_outcomes, chances)
def test_delays_have_a_tenth_of_jitter(delays: list[int], outcome: Outcome, chance: float) -> None:
    gaps = [next_delay(outcome, tries, delays, chance) for tries in range(1, len(delays) + 1)]
    known = [gap for gap in gaps if gap is not None]
    assert len(known) == len(delays)
    assert known == sorted(known)
    for gap, delay in zip(known, delays, strict=True):
        assert delay <= gap <= min(MAX_DELAY_SECONDS, delay * 1.1 + 0.5)


@given(growing_delays(), failed_outcomes, chances, st.floats(0, allow_infinity=False), st.data())
def test_a_longer_retry_after_is_honoured(
    delays: list[int], outcome: Outcome, chance: float, seconds: float, data: st.DataObject
) -> None:
    tries = data.draw(st.integers(1, len(delays)))
    plain = next_delay(outcome, tries, delays, chance)
    asked = next_delay(replace(outcome, retry_after=seconds), tries, delays, chance)
    assert plain is not None
    assert asked == min(MAX_DELAY_SECONDS, max(plain, round(seconds)))


@given(st.lists(st.integers(1, 10**9), max_size=12), failed_outcomes, chances, st.integers(1, 30))
def test_no_try_follows_the_last_delay(delays: list[int], outcome: Outcome, chance: float, tries: int) -> None:
    delay = next_delay(outcome, tries, delays, chance)
    assert (delay is None) == (tries > len(delays))
    assert delay is None or delay <= MAX_DELAY_SECONDS


@given(st.integers(200, 299) | st.just(410), st.integers(1, 9), chances)
def test_no_try_follows_the_end(status: int, tries: int, chance: float) -> None:
    assert next_delay(Outcome(status=status, retry_after=60), tries, DELAYS, chance) is None


def test_the_longest_delay_fits_into_sqs() -> None:
    """SQS hides a message for 12 hours in all from the moment it was received."""
    assert MAX_DELAY_SECONDS + WHOLE_SECONDS < 12 * 3600
