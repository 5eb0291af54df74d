"""A line of the queue is ready, delayed or in flight until it is finished, and its tries outlive a slice."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.chunks.line_queue import Line, LineQueue


def line(number: int, size: int = 10) -> Line:
    return Line(number, f"id-{number}", b"x" * size)


def queue_of(*numbers: int) -> LineQueue:
    queue = LineQueue()
    for number in numbers:
        queue.add(line(number), now=0.0)
    return queue


def taken(queue: LineQueue, now: float) -> Iterator[Line]:
    """Every line that may be sent at ``now``, in order."""
    while (found := queue.next(now)) is not None:
        yield found


def test_lines_are_sent_in_the_order_of_input() -> None:
    assert [each.number for each in taken(queue_of(0, 1, 2), now=0.0)] == [0, 1, 2]


def test_a_line_in_flight_is_not_sent_again() -> None:
    queue = queue_of(0)
    assert queue.next(0.0) is not None
    assert (queue.next(0.0), queue.in_flight, queue.ready) == (None, 1, 0)


def test_a_delayed_line_is_sent_when_it_is_due() -> None:
    queue = queue_of(0)
    [first] = taken(queue, now=0.0)
    queue.delay(first, until=5.0)
    assert (queue.in_flight, queue.empty, queue.next_at) == (0, False, 5.0)
    assert queue.next(4.9) is None
    assert queue.next(5.0) is first


def test_a_due_line_goes_before_ready_ones() -> None:
    queue = queue_of(0, 1)
    first = queue.next(0.0)
    assert first is not None
    queue.delay(first, until=1.0)
    assert queue.next_at == 0.0
    assert [each.number for each in taken(queue, now=1.0)] == [0, 1]


def test_delayed_lines_are_sent_by_due_time() -> None:
    queue = queue_of(0, 1, 2)
    for each, until in zip(list(taken(queue, now=0.0)), (3.0, 1.0, 3.0), strict=True):
        queue.delay(each, until)
    assert [each.number for each in taken(queue, now=3.0)] == [1, 0, 2]


def test_bodies_are_counted_until_finished() -> None:
    queue = LineQueue()
    for size in (10, 20):
        queue.add(line(size, size), now=0.0)
    first = queue.next(0.0)
    assert first is not None
    assert queue.body_bytes == 30
    queue.finish(first)
    assert (queue.body_bytes, queue.in_flight) == (20, 0)


def test_untouched_lines_are_not_carried() -> None:
    queue = queue_of(0, 1)
    queue.next(0.0)
    assert queue.carry(0.0) == {}


def test_tries_and_delays_are_carried() -> None:
    queue = queue_of(0, 1, 2, 3)
    failed, refused, flying, due = taken(queue, now=0.0)
    failed.tries = 2
    queue.delay(failed, until=9.0)
    queue.delay(refused, until=8.0)
    flying.tries = 1
    queue.delay(due, until=4.0)  # it needs no delay any more, and was not tried
    assert queue.carry(5.0) == {0: (2, 9.0), 1: (0, 8.0), 2: (1, 0.0)}


def test_a_carried_line_keeps_tries_and_delay() -> None:
    queue = LineQueue({0: (2, 9.0), 1: (3, 0.0)})
    for number in range(3):
        queue.add(line(number), now=5.0)
    assert [(each.number, each.tries) for each in taken(queue, now=5.0)] == [(1, 3), (2, 0)]
    assert [(each.number, each.tries) for each in taken(queue, now=9.0)] == [(0, 2)]


def test_a_line_that_was_not_read_stays_carried() -> None:
    queue = LineQueue({7: (2, 9.0)})
    assert queue.carry(100.0) == {7: (2, 9.0)}


def test_a_finished_line_is_not_carried() -> None:
    queue = LineQueue({0: (2, 0.0)})
    queue.add(line(0), now=0.0)
    [found] = taken(queue, now=0.0)
    queue.finish(found)
    assert queue.carry(0.0) == {}


@pytest.mark.parametrize(("bound", "kept"), [(0, []), (2, [1, 3]), (9, [1, 3, 5])])
def test_the_carry_is_bounded(bound: int, kept: list[int]) -> None:
    queue = LineQueue({5: (1, 0.0), 1: (1, 0.0), 3: (1, 0.0)}, max_carried=bound)
    assert list(queue.carry(0.0)) == kept


steps = st.lists(st.tuples(st.sampled_from(["next", "delay", "retry", "finish"]), st.integers(0, 5)), max_size=60)


@given(sizes=st.lists(st.integers(1, 50), max_size=12), steps=steps)
def test_no_line_is_lost_or_doubled(sizes: list[int], steps: list[tuple[str, int]]) -> None:
    queue, now = LineQueue(), 0.0
    for number, size in enumerate(sizes):
        queue.add(line(number, size), now)
    flying: list[Line] = []
    unfinished = dict(enumerate(sizes))
    for step, amount in steps:
        now += 1.0
        if step == "next":
            if (found := queue.next(now)) is not None:
                assert found not in flying
                flying.append(found)
        elif flying:
            each = flying.pop(amount % len(flying))
            if step == "finish":
                queue.finish(each)
                del unfinished[each.number]
            else:
                each.tries += step == "retry"
                queue.delay(each, until=now + amount)
        assert queue.in_flight == len(flying)
        assert queue.body_bytes == sum(unfinished.values())

    # The next slice, which has only the carry and the unfinished lines, sees the same tries and delays.
    following = LineQueue(queue.carry(now))
    for number in unfinished:
        following.add(line(number), now)
    for each in flying:
        queue.delay(each, until=0.0)
    for later in (now, now + 5.0):
        assert {(each.number, each.tries) for each in taken(following, later)} == {
            (each.number, each.tries) for each in taken(queue, later)
        }
    assert following.in_flight == queue.in_flight == len(unfinished)
