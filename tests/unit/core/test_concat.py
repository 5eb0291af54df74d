"""Byte ranges become the parts of one upload: every byte, within S3's limits, and mostly copied by S3."""

from hypothesis import given
from hypothesis import strategies as st
from nightshift.core.concat import MAX_PARTS, MIN_PART_BYTES, ByteRange, Part, plan_parts

sizes = st.one_of(
    st.integers(0, 10),
    st.integers(0, MIN_PART_BYTES),
    st.integers(MIN_PART_BYTES - 2, MIN_PART_BYTES + 2),
    st.integers(2 * MIN_PART_BYTES - 2, 2 * MIN_PART_BYTES + 2),
    st.integers(0, 20 * MIN_PART_BYTES),
)
ranges = st.lists(
    st.tuples(st.integers(0, 100), sizes).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=60
).map(lambda pairs: [ByteRange(str(number), start, end) for number, (start, end) in enumerate(pairs)])


def merged(pieces: list[ByteRange]) -> list[ByteRange]:
    """The ranges without empty ones, adjacent ones of one object merged."""
    whole: list[ByteRange] = []
    for piece in pieces:
        if whole and (whole[-1].key, whole[-1].end) == (piece.key, piece.start):
            whole[-1] = ByteRange(piece.key, whole[-1].start, piece.end)
        elif piece.size:
            whole.append(piece)
    return whole


def size(group: Part) -> int:
    return sum(piece.size for piece in group)


@given(ranges)
def test_parts_hold_all_ranges_in_order(given: list[ByteRange]) -> None:
    assert merged([piece for group in plan_parts(given) for piece in group]) == merged(given)


@given(ranges)
def test_only_the_last_part_may_be_small(given: list[ByteRange]) -> None:
    grouped = plan_parts(given)
    assert all(size(group) >= MIN_PART_BYTES for group in grouped[:-1])
    assert all(size(group) > 0 and all(piece.size for piece in group) for group in grouped)
    assert len(grouped) <= 2 * len(given) <= MAX_PARTS


@given(ranges)
def test_parts_read_into_memory_are_small(given: list[ByteRange]) -> None:
    for group in plan_parts(given):
        copied = len(group) == 1 and group[0].size >= MIN_PART_BYTES
        assert copied or size(group) < 2 * MIN_PART_BYTES


def test_empty_ranges_make_no_part() -> None:
    assert plan_parts([]) == plan_parts([ByteRange("a", 3, 3)]) == []


def test_a_large_range_completes_a_small_part() -> None:
    small, large = ByteRange("small", 0, 10), ByteRange("large", 5, 5 + 3 * MIN_PART_BYTES)
    head = 5 + MIN_PART_BYTES - 10
    assert plan_parts([small, large]) == [[small, ByteRange("large", 5, head)], [ByteRange("large", head, large.end)]]


def test_the_largest_batch_fits_into_one_upload() -> None:
    for count, each in ((2_000, 3 * MIN_PART_BYTES), (50_000, MIN_PART_BYTES // 2 + 1), (50_000, 8 * 1024 * 1024)):
        grouped = plan_parts([ByteRange(str(number), 0, each) for number in range(count)])
        assert len(grouped) <= MAX_PARTS
        assert sum(map(size, grouped)) == count * each
