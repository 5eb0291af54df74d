"""The ``x-ratelimit-*`` headers of providers, and values that are none of theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.upstream.allowance import duration, reset_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("59.7", 59.7),
        (" 2s ", 2.0),
        ("0", 0.0),
        ("", None),
        ("soon", None),
        ("-1s", None),
        ("1s later", None),
        ("1760000000", None),  # a time since 1970
        ("9" * 5000, None),
        ("٣s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def headers(requests: str, tokens: str, reset: str = "2s", reset_tokens: str = "6m0s") -> dict[str, str]:
    return {
        "x-ratelimit-remaining-requests": requests,
        "x-ratelimit-reset-requests": reset,
        "x-ratelimit-remaining-tokens": tokens,
        "x-ratelimit-reset-tokens": reset_tokens,
    }


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (headers("1", "1"), None),
        (headers("0", "1"), 2.0),
        (headers("0", "0"), 360.0),
        (headers("0", "5", reset="never"), None),
        (headers("none", "x"), None),
        ({}, None),
    ],
)
def test_a_wait_only_where_nothing_remains(sent: dict[str, str], seconds: float | None) -> None:
    assert reset_seconds(sent) == seconds


@given(st.dictionaries(st.sampled_from(list(headers("", ""))), st.text(max_size=80)))
def test_any_header_is_a_wait_or_nothing(sent: dict[str, str]) -> None:
    wait = reset_seconds(sent)
    assert wait is None or wait >= 0
