"""How a file is divided: every line once, and no more workers than there is work for."""

from itertools import accumulate, chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from nightshift.input.layout import (
    ROUNDS_PER_WORKER,
    SEGMENT_BYTES,
    SEGMENT_LINES,
    WORKER_CONCURRENCY,
    Caps,
    Segment,
    capped_chunks,
    chunk_concurrency,
    chunks,
    segment_lines,
    segment_of,
    segments,
)
from nightshift.routes.route import BatchApi

from tests.unit.samples import plan

line_sizes = st.one_of(
    st.lists(st.integers(1, 2 * 1024 * 1024), max_size=50),
    st.tuples(st.integers(1, 5_000), st.integers(1, 5_000)).map(lambda pair: [pair[0]] * pair[1]),
)


def of_lines(count: int, size: int = 1_000) -> list[Segment]:
    return segments([size * (line + 1) for line in range(count)])


@given(line_sizes)
def test_segments_cover_the_file_without_gaps(sizes: list[int]) -> None:
    ends = list(accumulate(sizes))
    cut = segments(ends)
    assert [segment.start for segment in cut] == [0, *(segment.end for segment in cut)][: len(cut)]
    assert [segment.first_line for segment in cut] == [0, *accumulate(segment.lines for segment in cut)][: len(cut)]
    assert sum(segment.lines for segment in cut) == len(ends)
    for segment in cut:
        assert segment.end == ends[segment.first_line + segment.lines - 1]
    assert (cut[-1].end if cut else 0) == sum(sizes)


@given(line_sizes)
def test_segments_are_as_large_as_limits_allow(sizes: list[int]) -> None:
    cut = segments(list(accumulate(sizes)))
    for segment in cut:
        assert 1 <= segment.lines <= SEGMENT_LINES
        assert segment.end - segment.start <= SEGMENT_BYTES or segment.lines == 1
    for segment, following in pairwise(cut):
        first_line_after = sizes[following.first_line]
        assert segment.lines == SEGMENT_LINES or segment.end + first_line_after - segment.start > SEGMENT_BYTES


def test_a_very_long_line_is_its_own_segment() -> None:
    assert segments([10, SEGMENT_BYTES + 100, SEGMENT_BYTES + 110]) == [
        Segment(0, 10, 0, 1),
        Segment(10, SEGMENT_BYTES + 100, 1, 1),
        Segment(SEGMENT_BYTES + 100, SEGMENT_BYTES + 110, 2, 1),
    ]


@given(count=st.integers(1, 50_000), size=st.integers(1, 20_000), max_concurrency=st.integers(1, 10_000))
def test_chunks_keep_all_segments_in_order(count: int, size: int, max_concurrency: int) -> None:
    cut = of_lines(count, size)
    shares = chunks(cut, max_concurrency)
    assert list(chain.from_iterable(shares)) == cut
    assert all(shares)


@given(count=st.integers(1, 50_000), size=st.integers(1, 20_000), max_concurrency=st.integers(1, 10_000))
def test_there_are_never_more_chunks_than_needed(count: int, size: int, max_concurrency: int) -> None:
    cut = of_lines(count, size)
    shares = chunks(cut, max_concurrency)
    assert 1 <= len(shares) <= len(cut)
    # One worker less would not be enough ...
    assert (len(shares) - 1) * WORKER_CONCURRENCY < max_concurrency
    # ... and each has enough lines for a worker.
    assert len(shares) == 1 or count >= len(shares) * WORKER_CONCURRENCY * ROUNDS_PER_WORKER


@given(count=st.integers(1, 50_000), size=st.integers(1, 20_000), max_concurrency=st.integers(1, 10_000))
def test_all_chunks_stay_within_max_concurrency(count: int, size: int, max_concurrency: int) -> None:
    shares = chunks(of_lines(count, size), max_concurrency)
    assert 1 <= chunk_concurrency(max_concurrency, len(shares)) <= WORKER_CONCURRENCY
    assert len(shares) * chunk_concurrency(max_concurrency, len(shares)) <= max_concurrency


@given(count=st.integers(1, 50_000), max_concurrency=st.integers(1, WORKER_CONCURRENCY))
def test_one_worker_is_filled_before_the_second(count: int, max_concurrency: int) -> None:
    assert len(chunks(of_lines(count), max_concurrency)) == 1
    assert chunk_concurrency(max_concurrency, 1) == max_concurrency


@pytest.mark.parametrize(
    ("lines", "max_concurrency", "workers"),
    [
        (50_000, 1_000, 1),
        (50_000, 1_001, 2),
        (50_000, 2_000, 2),
        (50_000, 10_000, 10),
        (50_000, 100_000, 12),
        (1_000, 10_000, 1),
        (8_000, 10_000, 2),
    ],
)
def test_workers_for_a_file(lines: int, max_concurrency: int, workers: int) -> None:
    assert len(chunks(of_lines(lines), max_concurrency)) == workers


@given(count=st.integers(10_000, 50_000), workers=st.integers(2, 8))
def test_the_work_is_shared_evenly(count: int, workers: int) -> None:
    shares = chunks(of_lines(count), workers * WORKER_CONCURRENCY)
    lines = [sum(segment.lines for segment in share) for share in shares]
    assert max(lines) - min(lines) <= 2 * SEGMENT_LINES


def test_in_batch_mode_a_segment_has_more_lines_but_no_more_than_one_of_the_providers_batches() -> None:
    realtime = plan().route
    wide = replace(realtime, mode="batch")
    narrow = replace(wide, batch_api=BatchApi(max_requests=300, max_bytes=1_100))
    assert segment_of(realtime, segment_lines(realtime)) == Caps(1_000, SEGMENT_BYTES)
    assert segment_of(wide, segment_lines(wide)) == Caps(5_000, SEGMENT_BYTES)
    assert segment_of(narrow, segment_lines(narrow)) == Caps(300, 999)


@given(line_sizes, st.integers(1, 3_000), st.integers(1, 8 * 1024 * 1024))
def test_capped_chunks_hold_what_a_provider_takes(sizes: list[int], lines: int, size: int) -> None:
    caps = Caps(lines, size)
    cut = segments(list(accumulate(sizes)), caps)
    shares = capped_chunks(cut, caps)
    assert list(chain.from_iterable(shares)) == cut
    for share in shares:
        assert sum(segment.lines for segment in share) <= lines
        assert share[-1].end - share[0].start <= size or sum(segment.lines for segment in share) == 1
    for share, following in pairwise(shares):
        too_many = sum(segment.lines for segment in (*share, following[0])) > lines
        assert too_many or following[0].end - share[0].start > size
