"""The segments of a batch at its end: each is sealed, with an error for every line that has no answer."""

from collections.abc import Iterable, Sequence

import msgspec

from nightshift.batches import planning
from nightshift.batches.record import Batch, BatchUsage, RequestCounts
from nightshift.core.concat import ByteRange
from nightshift.core.errors import NotFoundError
from nightshift.files import store as files
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.input.request import requests
from nightshift.results import store as results
from nightshift.results.line import LEFTOVER_MESSAGES, OutputLine, failed_line
from nightshift.results.seals import SealSummary
from nightshift.results.usage import Usage


class Standing(msgspec.Struct, frozen=True):
    """The segments of a batch with their tasks and seals; the seal of an open segment is None."""

    segments: Sequence[tuple[Task, Segment]]
    seals: Sequence[SealSummary | None]

    @classmethod
    def read(cls, batch: Batch) -> "Standing":
        """Read the batch's plan and seals. Without a plan and without an input there are no segments."""
        segments = [(task, segment) for task in planning.tasks_of(batch) for segment in task.segments]
        return cls(segments, results.read_seals(batch.id, [segment for _, segment in segments]))

    @property
    def unfinished(self) -> bool:
        return any(seal is None for seal in self.seals)


class Settlement(msgspec.Struct, frozen=True):
    """The seals of all segments, and the byte ranges of both files, in the order of the input.

    ``intact`` is False if a result part was lost and its segment sealed again, because an upload that an earlier run
    began then holds other bytes.
    """

    seals: Sequence[SealSummary]
    answered: Sequence[ByteRange]
    failed: Sequence[ByteRange]
    intact: bool

    @property
    def counts(self) -> RequestCounts:
        completed = sum(seal.completed for seal in self.seals)
        failed = sum(seal.failed for seal in self.seals)
        return RequestCounts(completed + failed, completed, failed)

    @property
    def usage(self) -> BatchUsage:
        return _sum(seal.usage for seal in self.seals)

    @property
    def batch_lines(self) -> int:
        """How many lines a provider's batch API has answered."""
        return sum(seal.batch_lines for seal in self.seals)

    @property
    def batch_usage(self) -> BatchUsage | None:
        """The tokens of these lines; None without such lines."""
        return _sum(seal.batch_usage for seal in self.seals) if self.batch_lines else None

    @property
    def has_internal_errors(self) -> bool:
        """Whether lines have no answer because of an error of this service, by the codes of the seals."""
        return any(seal.leftover_code == "internal_error" for seal in self.seals)


def _sum(usages: Iterable[Usage]) -> BatchUsage:
    total = Usage()
    for usage in usages:
        total.add(usage)
    return msgspec.convert(total.as_dict(), BatchUsage)


def settle(batch: Batch, standing: Standing, leftover_code: str) -> Settlement:
    """Seal every open segment, with ``leftover_code`` for each of its lines that has no answer."""
    seals: list[SealSummary] = []
    answered: list[ByteRange] = []
    failed: list[ByteRange] = []
    intact = True
    for (task, segment), sealed in zip(standing.segments, standing.seals, strict=True):
        seal = sealed or _seal_leftovers(batch, task, segment, leftover_code)
        try:
            places = results.byte_ranges(batch.id, segment, seal)
        except results.ResultPartGoneError:
            intact = False
            results.delete_seal(batch.id, segment)
            seal = _seal_leftovers(batch, task, segment, "internal_error")
            places = results.byte_ranges(batch.id, segment, seal)
        seals.append(seal)
        answered += places[0]
        failed += places[1]
    return Settlement(seals, answered, failed, intact)


def _seal_leftovers(batch: Batch, task: Task, segment: Segment, code: str) -> SealSummary:
    """Seal an open segment: the lines of its result parts, and ``code`` for every other line."""

    def unanswered(done: set[int]) -> list[OutputLine]:
        numbers = segment.line_numbers
        return [
            failed_line(batch.id, number, custom_id, code, LEFTOVER_MESSAGES[code])
            for number, custom_id in zip(numbers, _custom_ids(batch, segment), strict=True)
            if number not in done
        ]

    return results.seal_from_parts(batch.id, task.chunk, segment, unanswered, code)


def _custom_ids(batch: Batch, segment: Segment) -> list[str | None]:
    """The segment's ``custom_id``s; None for each where the input's bytes were deleted."""
    try:
        block = files.read_range(batch.account_id, batch.input_file_id, segment.start, segment.end)
    except NotFoundError:
        return [None] * segment.lines
    return [request.custom_id for request in requests(block)]
