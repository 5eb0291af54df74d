"""Range headers, as RFC 9110 has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.files.byte_range import UnsatisfiableRangeError, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=0-99", (0, 10)),
        (" Bytes=1-2 ", (1, 3)),
        ("bytes=0-1,3-4", None),
        ("bytes=3-1", None),
        ("lines=0-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_without_bytes_is_an_error(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 10)


@given(first=st.text("0123456789", max_size=40), last=st.text("0123456789", max_size=40), size=st.integers(0, 50))
def test_any_numbers_are_a_part_or_an_error(first: str, last: str, size: int) -> None:
    try:
        part = parse_range(f"bytes={first}-{last}", size)
    except UnsatisfiableRangeError:
        return
    assert part is None or 0 <= part[0] < part[1] <= size
