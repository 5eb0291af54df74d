"""A chunk store in the bucket and the tables of the stack."""

from collections.abc import Iterable

from nightshift.batches import store as batches
from nightshift.batches.progress import AnswerSeconds
from nightshift.chunks.chunk import InputGoneError
from nightshift.core.errors import NotFoundError
from nightshift.files import store as files
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.results import store as results
from nightshift.results.line import OutputLine
from nightshift.results.seals import SealSummary


class S3ChunkStore:
    """The chunk store of one task for one run; its methods are those of ``chunk.ChunkStore``.

    ``superseded`` becomes True when ``in_progress`` finds that a newer run works on the chunk.
    """

    def __init__(self, task: Task, input_file_id: str, run_id: str) -> None:
        self._task = task
        self._input_file_id = input_file_id
        self._run_id = run_id
        self.superseded = False
        self._was_empty = False

    def begin(self, *, is_fresh: bool) -> None:
        """Take the chunk over from any older run. The first one of a batch that ``is_fresh`` looks for no results."""
        is_first = batches.begin_run(self._task.batch_id, self._task.chunk, self._run_id)
        self._was_empty = is_first and is_fresh

    def read(self, segment: Segment) -> bytes:
        try:
            return files.read_range(self._task.account_id, self._input_file_id, segment.start, segment.end)
        except NotFoundError as error:
            raise InputGoneError from error

    def seals(self, segments: list[Segment]) -> list[SealSummary | None]:
        return [None] * len(segments) if self._was_empty else results.read_seals(self._task.batch_id, segments)

    def result_parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        if self._was_empty:
            return ()
        return results.read_result_parts(self._task.batch_id, self._task.chunk, first_line, end_line)

    def write_result_part(self, lines: list[OutputLine]) -> None:
        results.write_result_part(self._task.batch_id, self._task.chunk, lines)

    def seal(self, segment: Segment, lines: list[OutputLine]) -> SealSummary:
        return results.write_seal(self._task.batch_id, segment, lines)

    def seal_from_parts(self, segment: Segment) -> SealSummary:
        return results.seal_from_parts(self._task.batch_id, self._task.chunk, segment)

    def record_progress(self, completed: int, failed: int, answer_seconds: AnswerSeconds | None = None) -> None:
        task = self._task
        batches.put_progress(
            task.batch_id, task.chunk, completed=completed, failed=failed, answer_seconds=answer_seconds
        )

    def in_progress(self) -> bool:
        self.superseded = not batches.is_last_run(self._task.batch_id, self._task.chunk, self._run_id)
        if self.superseded:
            return False
        return batches.get(self._task.account_id, self._task.batch_id).status == "in_progress"
