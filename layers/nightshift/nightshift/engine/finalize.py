"""The end of a batch: settle its segments, write its two files, record its outcome. Each step can run twice."""

import time
from collections.abc import Sequence

from nightshift.batches import charges
from nightshift.batches import store as batches
from nightshift.batches.cost import cost_of, total_nano_dollars
from nightshift.batches.record import Batch, Outcome
from nightshift.batches.status import TERMINAL, Status
from nightshift.batches.validate import TOO_LATE
from nightshift.chunks import seats
from nightshift.core import concat
from nightshift.core.concat import ByteRange
from nightshift.core.errors import Fault
from nightshift.core.ids import derived_id
from nightshift.core.log import count, logger
from nightshift.engine.settlement import Settlement, Standing, settle
from nightshift.files import store as files

# How long output files live where the batch does not say.
OUTPUT_SECONDS = 30 * 24 * 3600

# Workers stop at the deadline by their own clocks, which may be that much ahead of this one.
CLOCK_SKEW_SECONDS = 5

# The end of a batch in each of these statuses, and the code of its lines without an answer.
_ENDS: dict[Status, tuple[Status, str]] = {
    "cancelling": ("cancelled", "batch_cancelled"),
    "in_progress": ("expired", "batch_expired"),
    "finalizing": ("completed", "internal_error"),
}


UNKNOWN_REASON = "Some requests could not be processed."


def finalize(account_id: str, batch_id: str, reason: str | None = None) -> Batch:
    """Bring the batch to its terminal status and return it; a batch that has ended is returned as it is.

    ``reason`` goes into the batch's ``errors`` where lines stay without an answer before the deadline, if no worker
    recorded one, and where the batch was not validated.

    Raises:
        NotFoundError: there is no such batch.
    """
    standing: Standing | None = None
    while True:
        batch = batches.get(account_id, batch_id)
        if batch.status in TERMINAL:
            return batch
        if batch.status == "validating" and batch.is_open_to_work:
            # Its provider has never started, and a batch in progress may expire.
            batches.transition(batch, "in_progress")
            continue
        if batch.status == "validating":
            ended = _fail(batch, reason)
        elif batch.plan is None:
            # Only a batch that was cancelled before its validation is here: it has no lines to answer.
            ended = batches.transition(batch, "cancelled")
        else:
            standing = standing or Standing.read(batch)
            if batch.status == "in_progress" and not batch.overdue:
                _choose_end(batch, standing)
                continue
            ended = _end(batch, standing, reason or UNKNOWN_REASON)
        if ended is not None:
            return ended
        # The batch has left its status meanwhile, for example by a cancel, and its seals may have changed.
        standing = None


def _fail(batch: Batch, reason: str | None) -> Batch | None:
    """End a batch that was not validated; None where it has left its status."""
    ended = batches.transition(batch, "failed", errors=(_fault(reason) if reason else TOO_LATE,))
    if ended is not None:
        count({"BatchesWithErrors": 1})  # an alarm is raised: this is no fault of the file
    return ended


def _fault(message: str) -> Fault:
    """An entry of ``errors`` about the batch as a whole."""
    return Fault("internal_error", message)


def _choose_end(batch: Batch, standing: Standing) -> None:
    """Decide, once for all finalizers, whether a batch in progress completes or expires."""
    if standing.unfinished and time.time() >= batch.expires_at - CLOCK_SKEW_SECONDS:
        batches.mark_overdue(batch)
    else:
        batches.transition(batch, "finalizing")


def _end(batch: Batch, standing: Standing, reason: str) -> Batch | None:
    """Settle the segments, write the files and the terminal status; None where the batch has left its status."""
    terminal, leftover_code = _ENDS[batch.status]
    settlement = settle(batch, standing, leftover_code)
    output_file_id, error_file_id = _write_files(batch, settlement)
    outcome = Outcome(
        request_counts=settlement.counts,
        usage=settlement.usage,
        errors=_faults(batch, settlement, reason),
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        batch_lines=settlement.batch_lines,
        batch_usage=settlement.batch_usage,
    )
    charges.settle(batch, total_nano_dollars(batch, outcome))
    ended = batches.transition(batch, terminal, outcome=outcome)
    if ended is not None:
        if terminal != "completed":
            seats.leave_queues(ended)
        _count(terminal, outcome)
        _tell(ended)
    return ended


def _faults(batch: Batch, settlement: Settlement, reason: str) -> tuple[Fault, ...]:
    """Why lines of the batch have no answer, if an error of this service is the reason."""
    if not settlement.seals:
        return (_fault("The batch's plan and its input were deleted while it ran; its results are lost."),)
    if not settlement.has_internal_errors:
        return ()
    problems = batches.problems(batch.id) or [f"{reason} See the lines in error_file_id."]
    return tuple(map(_fault, problems))


def _write_files(batch: Batch, settlement: Settlement) -> tuple[str | None, str | None]:
    """The ids of the output and the error file; None for a file that would have no line."""
    written_at = batches.files_written_at(batch)
    halves = {"output": settlement.answered, "error": settlement.failed}
    sizes = {"output": settlement.counts.completed, "error": settlement.counts.failed}
    output_id, error_id = (
        _write_file(batch, kind, pieces, written_at, resume=settlement.intact) if sizes[kind] else None
        for kind, pieces in halves.items()
    )
    return output_id, error_id


def _write_file(batch: Batch, kind: str, pieces: Sequence[ByteRange], created_at: int, *, resume: bool) -> str:
    """Join ``pieces`` into the batch's ``output`` or ``error`` file and record it.

    The file's id depends on the batch and ``created_at`` alone, so that a second run writes the same file. ``resume``
    continues the upload of a run that was killed.
    """
    file_id = derived_id("file", batch.id, kind, at=created_at)
    join = concat.resume if resume else concat.join
    size = join(pieces, files.key(batch.account_id, file_id))
    if batches.get(batch.account_id, batch.id).status in TERMINAL:
        # Another finalizer ended the batch first. Its file may have been deleted since, and must not come back.
        if not files.exists(batch.account_id, file_id):
            files.purge(batch.account_id, file_id)
        return file_id
    files.record(
        batch.account_id,
        file_id,
        filename=f"{batch.id}_{kind}.jsonl",
        purpose="batch_output",
        size=size,
        created_at=created_at,
        expires_at=created_at + (batch.output_expires_seconds or OUTPUT_SECONDS),
    )
    return file_id


def _count(terminal: Status, outcome: Outcome) -> None:
    count(
        {
            f"Batches{terminal.capitalize()}": 1,
            "BatchesWithErrors": int(bool(outcome.errors)),
            "LinesAnswered": outcome.request_counts.completed,
            "LinesFailed": outcome.request_counts.failed,
            "InputTokens": outcome.usage.input_tokens,
            "OutputTokens": outcome.usage.output_tokens,
        }
    )


def _tell(batch: Batch) -> None:
    """Count the lines and the dollars of each way to the upstream for the batch's route; log them with its account.

    Accounts are no dimension of the metrics, because each would cost for every one of them: the template's rule
    SpendByAccount makes one of these lines of the log.
    """
    if batch.plan is None or batch.request_counts is None:
        return
    cost = cost_of(batch)
    name = f"{batch.plan.route.provider}/{batch.plan.route.model}"
    logger.info(
        "batch ended",
        batch_id=batch.id,
        account_id=batch.account_id,
        route=name,
        status=batch.status,
        seconds=int(time.time()) - batch.created_at,
        lines=batch.request_counts.total,
        failed=batch.request_counts.failed,
        input_tokens=cost.batch.input_tokens + cost.realtime.input_tokens,
        output_tokens=cost.batch.output_tokens + cost.realtime.output_tokens,
        dollars=cost.dollars,
    )
    metrics: dict[str, float] = {"LinesByBatchApi": cost.batch.lines, "LinesInRealTime": cost.realtime.lines}
    if cost.dollars is not None:
        metrics["Dollars"] = cost.dollars
        count({"Dollars": cost.dollars})
    count(metrics, route=name)
