"""New ids sort by time, derived ids repeat, and no two ids are the same."""

from hypothesis import given
from hypothesis import strategies as st
from nightshift.core.ids import derived_id, new_id, request_line_id


def test_a_new_id_is_a_prefix_and_26_characters() -> None:
    prefix, _, rest = new_id("batch").partition("_")
    assert prefix == "batch"
    assert len(rest) == 26
    assert rest.isalnum()
    assert rest.islower()


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_new_ids_sort_by_millisecond(one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    if int(later * 1000) > int(earlier * 1000):
        assert new_id("x", earlier) < new_id("x", later)


def test_new_ids_differ() -> None:
    assert len({new_id("x", 1.0) for _ in range(10_000)}) == 10_000


@given(st.lists(st.text(max_size=5), max_size=3), st.lists(st.text(max_size=5), max_size=3))
def test_derived_ids_depend_on_their_parts_alone(one: list[str], other: list[str]) -> None:
    # Our parts are ids and words, which hold no NUL.
    one, other = ([part.replace("\0", "") for part in parts] for parts in (one, other))
    same = "\0".join(one) == "\0".join(other)
    assert (derived_id("x", *one) == derived_id("x", *other)) is same


def test_derived_ids_do_not_depend_on_the_prefix() -> None:
    assert derived_id("file", "batch_1", "output") == "file_" + derived_id("evt", "batch_1", "output")[4:]
    assert len(derived_id("evt", "a")) == len("evt_") + 26


def test_derived_ids_never_change() -> None:
    """Ids that are stored are derived again: by a retry, or by a later release."""
    assert derived_id("file", "batch_1", "output") == "file_3qtjapbn7jx4wqcjwpqj7skzty"


def test_line_ids_hold_their_batch_and_sort() -> None:
    batch_id = new_id("batch")
    ids = [request_line_id(batch_id, line) for line in range(50_000)]
    assert all(one.startswith("batch_req_" + batch_id.removeprefix("batch_")) for one in ids[::1_000])
    assert len(set(ids)) == 50_000
    assert ids == sorted(ids)
