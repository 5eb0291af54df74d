"""The end of a batch: every segment sealed, two files joined, one terminal status. Each step can be done twice."""

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from nightshift.batches import store as batches
from nightshift.batches.status import TERMINAL, Status
from nightshift.core import concat
from nightshift.core.concat import ByteRange
from nightshift.core.errors import NotFoundError
from nightshift.core.ids import derived_id
from nightshift.core.log import count
from nightshift.files import store as files
from nightshift.input import inspection as intake
from nightshift.input import plan
from nightshift.input.file_check import requests
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.results import store as results
from nightshift.results.lines import LEFTOVER_MESSAGES, OutputLine, SealSummary, Usage, failed_line

# How long output files live where the batch does not say.
OUTPUT_SECONDS = 30 * 24 * 3600

# Workers stop at the deadline by their own clocks, which may be that much ahead of this one.
CLOCK_SKEW_SECONDS = 5

# What a batch in this status ends as, and why a line without an answer has none.
_ENDS: dict[Status, tuple[Status, str]] = {
    "cancelling": ("cancelled", "batch_cancelled"),
    "in_progress": ("expired", "batch_expired"),
    "finalizing": ("completed", "internal_error"),
}


def finalize(account_id: str, batch_id: str, why: str = "Some requests could not be processed.") -> dict[str, Any]:
    """Bring the batch to its terminal status and return its item; a batch that has ended is returned as it is.

    ``why`` is said in its ``errors`` where lines are left over that nobody answered, and no worker said more.
    """
    tasks: list[Task] | None = None
    summaries: list[SealSummary | None] = []
    while True:
        batch = batches.get(account_id, batch_id)
        if batch["status"] in TERMINAL:
            return batch
        if batch["status"] == "validating":
            return _fail_unstarted(batch) or batches.get(account_id, batch_id)
        if batch["status"] == "cancelling" and "lines" not in batch:
            # Cancelled before it was validated: there are no lines to answer for.
            ended = batches.transition(account_id, batch_id, "cancelled", expected="cancelling")
        else:
            if tasks is None:
                tasks = plan.read(batch_id) or intake.plan_again(batch)
                summaries = results.all_sealed(batch_id, _segments(tasks))
            if batch["status"] == "in_progress" and "overdue" not in batch:
                unfinished = any(summary is None for summary in summaries)
                if unfinished and time.time() >= batch["expires_at"] - CLOCK_SKEW_SECONDS:
                    batches.mark_overdue(account_id, batch_id)
                else:
                    batches.transition(account_id, batch_id, "finalizing", expected="in_progress")
                continue
            ended = _end(batch, tasks, summaries, why)
        if ended is not None:
            return ended
        # The batch was moved on meanwhile, by a cancel say: look again, at its seals too.
        tasks = None


def _fail_unstarted(batch: dict[str, Any]) -> dict[str, Any] | None:
    errors = [_error("The batch could not be started.")]
    return batches.transition(batch["pk"], batch["sk"], "failed", expected="validating", fields={"errors": errors})


def _error(message: str) -> dict[str, Any]:
    """An entry of a batch's ``errors`` that is about the batch as a whole."""
    return {"code": "internal_error", "message": message, "param": None, "line": None}


def _end(
    batch: dict[str, Any], tasks: list[Task], summaries: list[SealSummary | None], why: str
) -> dict[str, Any] | None:
    """Seal what is left over, join the files, and write the terminal status; None where the batch was moved on."""
    terminal, leftover_code = _ENDS[batch["status"]]
    final: list[SealSummary] = []
    places: list[tuple[list[ByteRange], list[ByteRange]]] = []
    intact = True
    pairs = [(task, segment) for task in tasks for segment in task.spans()]
    for (task, segment), sealed in zip(pairs, summaries, strict=True):
        summary = sealed or _seal_leftovers(batch, task, segment, leftover_code)
        try:
            places.append(results.slices(batch["sk"], segment, summary))
        except results.LostPartError:
            # Somebody deleted what the seal lists: its lines that are left are sealed anew.
            intact = False
            results.unseal(batch["sk"], segment)
            summary = _seal_leftovers(batch, task, segment, "internal_error")
            places.append(results.slices(batch["sk"], segment, summary))
        final.append(summary)
    segments = _segments(tasks)
    errors: list[dict[str, Any]] = []
    if not tasks:
        errors = [_error("The batch's plan and its input were deleted while it ran; its results are lost.")]
    elif any(summary.left_over == "internal_error" for summary in final):
        # Asked of the seals, because they may be another's, or of a run of this that was killed.
        problems = batches.problems(batch["sk"]) or [f"{why} See the lines in error_file_id."]
        errors = [_error(problem) for problem in problems]
    usage = Usage()
    for summary in final:
        usage.add(summary.usage)
    counts = {
        "total": sum(segment.lines for segment in segments),
        "completed": sum(summary.completed for summary in final),
        "failed": sum(summary.failed for summary in final),
    }
    output_id = error_id = None
    written_at = batches.files_written_at(batch["pk"], batch["sk"])
    if counts["completed"]:
        answered = [place for each, _ in places for place in each]
        output_id = _write_file(batch, "output", answered, written_at, resume=intact)
    if counts["failed"]:
        failed = [place for _, each in places for place in each]
        error_id = _write_file(batch, "error", failed, written_at, resume=intact)
    ended = batches.transition(
        batch["pk"],
        batch["sk"],
        terminal,
        expected=batch["status"],
        fields={
            "errors": errors or None,
            "request_counts": counts,
            "usage": usage.as_dict(),
            "output_file_id": output_id,
            "error_file_id": error_id,
        },
    )
    if ended is not None:
        count(
            {
                f"Batches{terminal.capitalize()}": 1,
                "BatchesWithErrors": int(bool(errors)),
                "LinesAnswered": counts["completed"],
                "LinesFailed": counts["failed"],
                "InputTokens": usage.input_tokens,
                "OutputTokens": usage.output_tokens,
            }
        )
    return ended


def _segments(tasks: Sequence[Task]) -> list[Segment]:
    return list(chain.from_iterable(task.spans() for task in tasks))


def _seal_leftovers(batch: dict[str, Any], task: Task, segment: Segment, code: str) -> SealSummary:
    """Seal a segment that its worker left open: what its parts hold, and ``code`` for every other line."""

    def answer_for(done: set[int]) -> list[OutputLine]:
        numbers = range(segment.first_line, segment.first_line + segment.lines)
        return [
            failed_line(batch["sk"], number, custom_id, code, LEFTOVER_MESSAGES[code])
            for number, custom_id in zip(numbers, _custom_ids(batch, segment), strict=True)
            if number not in done
        ]

    return results.seal_parts(batch["sk"], task.chunk, segment, answer_for, code)


def _custom_ids(batch: dict[str, Any], segment: Segment) -> list[str | None]:
    try:
        block = files.read_range(batch["pk"], batch["input_file_id"], segment.start, segment.end)
    except NotFoundError:
        # The input was deleted underneath the batch: its lines still get their answers, without a name.
        return [None] * segment.lines
    return [request.custom_id for request in requests(block)]


def _write_file(batch: dict[str, Any], kind: str, pieces: list[ByteRange], created_at: int, *, resume: bool) -> str:
    """Join ``pieces`` into the batch's ``output`` or ``error`` file. Its id depends on the batch and the time that it
    has kept for this, so that doing it twice makes one file; ``resume`` where nothing else can have been joined."""
    file_id = derived_id("file", batch["sk"], kind, at=created_at)
    size = concat.join(pieces, files.key(batch["pk"], file_id), resume=resume)
    if batches.get(batch["pk"], batch["sk"])["status"] in TERMINAL:
        # Another ended it meanwhile, and its file may have been deleted since: it must not come back.
        if not files.exists(batch["pk"], file_id):
            files.purge(batch["pk"], file_id)
        return file_id
    files.record(
        batch["pk"],
        file_id,
        filename=f"{batch['sk']}_{kind}.jsonl",
        purpose="batch_output",
        size=size,
        created_at=created_at,
        expires_at=created_at + int(batch.get("output_expires_seconds") or OUTPUT_SECONDS),
    )
    return file_id
