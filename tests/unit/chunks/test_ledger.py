"""The ledger counts each line once, has each of them stored once, and counts the bytes that it holds in memory."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nightshift.chunks.ledger import Ledger, Unstored
from nightshift.chunks.run_limits import RunLimits
from nightshift.input.layout import Segment
from nightshift.results.line import OutputLine
from nightshift.results.seals import SealSummary
from nightshift.results.usage import Usage

LIMITS = RunLimits()


def line(number: int, size: int = 10, answered: bool = True) -> OutputLine:
    return OutputLine(number, b"x" * (size - 1), answered)


def segments_of(*lines: int) -> list[Segment]:
    """Segments with so many lines each, one after the other."""
    firsts = [sum(lines[:index]) for index in range(len(lines))]
    return [Segment(first, first + count, first, count) for first, count in zip(firsts, lines, strict=True)]


def ledger_of(*lines: int, limits: RunLimits = LIMITS) -> Ledger:
    """A ledger of segments with so many lines each, of which none is finished."""
    ledger = Ledger(limits)
    ledger.restore_seals(segments_of(*lines), [None] * len(lines))
    return ledger


def record_all(ledger: Ledger, *numbers: int) -> None:
    for number in numbers:
        assert ledger.record(line(number))


def numbers_in(parts: Unstored) -> list[list[int]]:
    return [[each.number for each in part] for part in parts.parts]


# --- recording -----------------------------------------------------------------------------------------------------


def test_completed_and_failed_lines_are_counted() -> None:
    ledger = ledger_of(3)
    ledger.record(line(0))
    ledger.record(line(2, answered=False))
    assert (ledger.completed, ledger.failed) == (1, 1)
    assert [ledger.is_finished(number) for number in range(3)] == [True, False, True]


def test_a_line_is_recorded_once() -> None:
    ledger = ledger_of(3)
    assert ledger.record(line(1))
    assert not ledger.record(line(1, answered=False))
    assert (ledger.completed, ledger.failed, ledger.held_bytes) == (1, 0, 10)


@pytest.mark.parametrize("number", [0, 1, 4, 9])
def test_lines_of_no_open_segment_are_ignored(number: int) -> None:
    first, second = segments_of(2, 2)
    ledger = Ledger(LIMITS)
    ledger.restore_seals([first, second], [SealSummary(20, 0, 2, 0, Usage()), None])
    assert not ledger.record(line(number))
    assert not ledger.is_finished(number)
    assert ledger.completed == 2


# --- storing -------------------------------------------------------------------------------------------------------


def test_a_whole_segment_is_sealed_from_memory() -> None:
    ledger = ledger_of(2, 2)
    record_all(ledger, 1, 0, 3)
    unstored = ledger.take_unstored()
    [(segment, lines)] = unstored.seals
    assert (segment.first_line, {each.number for each in lines}) == (0, {0, 1})
    assert numbers_in(unstored) == [[3]]
    assert (unstored.seals_from_parts, unstored.size, unstored.completed) == ([], 30, 3)


def test_a_line_is_taken_once() -> None:
    ledger = ledger_of(3)
    record_all(ledger, 0, 1)
    ledger.stored(ledger.take_unstored())
    again = ledger.take_unstored()
    assert (again.seals, again.parts, again.size) == ([], [], 0)
    assert again.completed == 2


def test_a_segment_is_sealed_with_stored_lines() -> None:
    ledger = ledger_of(3)
    record_all(ledger, 0, 1)
    ledger.stored(ledger.take_unstored())
    record_all(ledger, 2)
    [(_, lines)] = ledger.take_unstored().seals
    assert sorted(each.number for each in lines) == [0, 1, 2]


def test_a_sealed_segment_leaves_memory() -> None:
    ledger = ledger_of(2, 2)
    record_all(ledger, 0, 1, 2)
    ledger.stored(ledger.take_unstored())
    assert ledger.held_bytes == 10


def test_a_complete_segment_is_stored_at_once() -> None:
    ledger = ledger_of(2)
    record_all(ledger, 0)
    assert not ledger.store_is_due
    record_all(ledger, 1)
    assert ledger.store_is_due
    ledger.take_unstored()
    assert not ledger.store_is_due


def test_storing_is_due_when_a_part_is_full() -> None:
    ledger = ledger_of(9, limits=RunLimits(part_bytes=20))
    record_all(ledger, 0)
    assert not ledger.store_is_due
    record_all(ledger, 1)
    assert ledger.store_is_due
    ledger.take_unstored()
    assert not ledger.store_is_due


def test_a_few_lines_wait_for_more() -> None:
    ledger = ledger_of(3, 3, limits=RunLimits(part_bytes=20))
    record_all(ledger, 0, 1, 2, 4)
    unstored = ledger.take_unstored(whole=False)
    assert ([segment.first_line for segment, _ in unstored.seals], unstored.parts, unstored.completed) == ([0], [], 3)
    ledger.stored(unstored)
    record_all(ledger, 3)
    assert numbers_in(ledger.take_unstored(whole=False)) == [[4, 3]], "they fill a part"


def test_parts_are_cut_at_their_size() -> None:
    ledger = ledger_of(9, limits=RunLimits(part_bytes=20))
    record_all(ledger, 0, 1, 2, 3, 4)
    assert numbers_in(ledger.take_unstored()) == [[0, 1], [2, 3], [4]]


# --- memory --------------------------------------------------------------------------------------------------------


def test_a_long_segment_is_sealed_from_parts() -> None:
    ledger = ledger_of(2, 2, limits=RunLimits(seal_bytes=19))
    record_all(ledger, 0, 1)
    unstored = ledger.take_unstored()
    assert unstored.seals == []
    assert numbers_in(unstored) == [[0, 1]]
    assert [segment.first_line for segment in unstored.seals_from_parts] == [0]


def test_stored_lines_over_the_limit_are_freed() -> None:
    ledger = ledger_of(3, 3, limits=RunLimits(held_bytes=25))
    record_all(ledger, 0, 1)
    ledger.stored(ledger.take_unstored())
    assert ledger.held_bytes == 20
    record_all(ledger, 3)
    ledger.stored(ledger.take_unstored())
    assert ledger.held_bytes == 0
    record_all(ledger, 2)
    unstored = ledger.take_unstored()
    assert [segment.first_line for segment in unstored.seals_from_parts] == [0]
    assert numbers_in(unstored) == [[2]]


def test_unstored_lines_are_never_dropped() -> None:
    ledger = ledger_of(3, limits=RunLimits(held_bytes=0))
    record_all(ledger, 0)
    unstored = ledger.take_unstored()
    record_all(ledger, 1)  # while the round of storing is under way
    ledger.stored(unstored)
    assert ledger.held_bytes == 10
    assert numbers_in(ledger.take_unstored()) == [[1]]


# --- what earlier runs stored --------------------------------------------------------------------------------------


def test_sealed_segments_are_counted_and_closed() -> None:
    segments = segments_of(2, 2)
    ledger = Ledger(LIMITS)
    assert ledger.restore_seals(segments, [SealSummary(10, 10, 1, 1, Usage()), None]) == segments[1:]
    assert ledger.incomplete() == segments[1:]
    assert (ledger.completed, ledger.failed) == (1, 1)


def test_restored_lines_are_finished_and_stored() -> None:
    ledger = ledger_of(3)
    ledger.restore_part([line(0), line(0, answered=False), line(2, answered=False)])
    ledger.restore_part([line(2)])
    assert (ledger.completed, ledger.failed) == (1, 1)
    assert ledger.is_finished(0)
    assert ledger.incomplete() == segments_of(3)
    unstored = ledger.take_unstored()
    assert (unstored.seals, unstored.parts, unstored.size) == ([], [], 0)


@pytest.mark.parametrize("held_bytes", [0, 100])
def test_a_restored_complete_segment_is_sealed(held_bytes: int) -> None:
    ledger = ledger_of(2, 2, limits=RunLimits(held_bytes=held_bytes))
    ledger.restore_part([line(0), line(1)])
    assert [segment.first_line for segment in ledger.incomplete()] == [2]
    unstored = ledger.take_unstored()
    sealed = [segment for segment, _ in unstored.seals]
    assert (sealed, unstored.seals_from_parts) == ((segments_of(2), []) if held_bytes else ([], segments_of(2)))
    assert unstored.size == 0


# --- any order of events -------------------------------------------------------------------------------------------


class AnyLedger(RuleBasedStateMachine):
    """Lines are recorded, stored and, after a crash, restored in any order. The store is two sets of line numbers."""

    @initialize(
        lines=st.lists(st.integers(1, 5), min_size=1, max_size=4),
        held_bytes=st.sampled_from([0, 30, 10_000]),
        part_bytes=st.sampled_from([1, 40, 10_000]),
        seal_bytes=st.sampled_from([25, 10_000]),
    )
    def begin(self, lines: list[int], held_bytes: int, part_bytes: int, seal_bytes: int) -> None:
        self.limits = RunLimits(held_bytes=held_bytes, part_bytes=part_bytes, seal_bytes=seal_bytes)
        self.segments = segments_of(*lines)
        self.parts: dict[int, OutputLine] = {}
        self.sealed: dict[Segment, set[int]] = {}
        self.crash()

    @rule()
    def crash(self) -> None:
        """Start again from what is stored."""
        self.ledger = Ledger(self.limits)
        self.unstored: Unstored | None = None
        seals = [self.seal_of(segment) for segment in self.segments]
        unsealed = self.ledger.restore_seals(self.segments, seals)
        assert unsealed == [segment for segment in self.segments if segment not in self.sealed]
        self.recorded = {n: each for n, each in self.parts.items() if not self.is_sealed(n)}
        self.waiting: set[int] = set()
        for each in self.recorded.values():
            self.ledger.restore_part([each])

    def seal_of(self, segment: Segment) -> SealSummary | None:
        return SealSummary(0, 0, segment.lines, 0, Usage()) if segment in self.sealed else None

    def is_sealed(self, number: int) -> bool:
        return any(number in segment.line_numbers for segment in self.sealed)

    @rule(number=st.integers(0, 19), size=st.integers(1, 30))
    def record(self, number: int, size: int) -> None:
        each = line(number, size)
        expected = number < self.segments[-1].end_line and number not in self.recorded and not self.is_sealed(number)
        assert self.ledger.record(each) == expected
        if expected:
            self.recorded[number] = each
            self.waiting.add(number)

    @precondition(lambda self: self.unstored is None)
    @rule(whole=st.booleans())
    def take(self, whole: bool) -> None:
        """Every finished line that is not stored is taken, once; and every complete segment is sealed, once.

        Without ``whole``, lines that fill no result part are left, unless they complete a segment.
        """
        complete = {s for s in self.segments if s not in self.sealed and self.recorded.keys() >= set(s.line_numbers)}
        left = set() if whole else {n for n in self.waiting if not any(n in s.line_numbers for s in complete)}
        if self.bytes_of(left) >= self.limits.part_bytes:
            left = set()
        taken = self.waiting - left
        self.unstored = unstored = self.ledger.take_unstored(whole)
        written = [each.number for part in unstored.parts for each in part]
        assert len(written) == len(set(written))
        in_seals = {each.number for _, lines in unstored.seals for each in lines}
        assert not in_seals & set(written)
        assert taken <= in_seals | set(written)
        assert not left & (in_seals | set(written))
        assert unstored.size == self.bytes_of(taken)
        assert unstored.completed == self.ledger.completed - len(left)
        self.waiting = left
        assert {segment for segment, _ in unstored.seals} | set(unstored.seals_from_parts) == complete

    @precondition(lambda self: self.unstored is not None)
    @rule()
    def store(self) -> None:
        """A seal has exactly its segment's lines, from memory or from the parts."""
        assert self.unstored is not None
        for segment, lines in self.unstored.seals:
            assert sorted(each.number for each in lines) == list(segment.line_numbers)
            self.sealed[segment] = set(segment.line_numbers)
        self.parts |= {each.number: each for part in self.unstored.parts for each in part}
        self.ledger.stored(self.unstored)
        for segment in self.unstored.seals_from_parts:
            assert self.parts.keys() >= set(segment.line_numbers)
            self.sealed[segment] = set(segment.line_numbers)
        self.unstored = None
        self.recorded = {n: each for n, each in self.recorded.items() if not self.is_sealed(n)}
        assert self.ledger.held_bytes <= max(self.limits.held_bytes, self.bytes_of(self.waiting))

    def bytes_of(self, numbers: set[int]) -> int:
        return sum(self.recorded[number].size for number in numbers)

    @invariant()
    def every_line_is_counted_once(self) -> None:
        sealed = sum(segment.lines for segment in self.sealed)
        assert self.ledger.completed + self.ledger.failed == sealed + len(self.recorded)

    @invariant()
    def memory_holds_at_least_what_is_not_stored(self) -> None:
        assert self.bytes_of(self.waiting) <= self.ledger.held_bytes <= self.bytes_of(set(self.recorded))
        if self.limits.held_bytes == 10_000:
            assert self.ledger.held_bytes == self.bytes_of(set(self.recorded)), "nothing was dropped"


TestAnyLedger = AnyLedger.TestCase
TestAnyLedger.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
