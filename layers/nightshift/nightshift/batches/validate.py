"""Validate a batch that has not been validated inside its create call, and put it in progress."""

import time

from nightshift.batches import planning, quota
from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned, RequestCounts
from nightshift.core.errors import Fault, InvalidFileError, NightshiftError
from nightshift.files import store as files
from nightshift.input import inspection
from nightshift.input.file_check import FileCheck

TOO_LATE = Fault("internal_error", "The batch could not be validated before its deadline.")


def validate(batch: Batch, seconds: float) -> Batch:
    """Move a ``validating`` batch to ``in_progress`` or ``failed``; return it as it is then.

    A batch that goes through its provider's batch API stays ``validating``, with its plan, until the provider starts.
    Any other one fails at its deadline, because no other end follows from ``validating``.

    Raises:
        TimeoutError: the file could not be checked within ``seconds``.
    """
    if batch.is_open_to_work:
        return batch
    if time.time() >= batch.expires_at:
        return batches.transition(batch, "failed", errors=(TOO_LATE,)) or batches.get(batch.account_id, batch.id)
    plan: Planned | None = None
    if batch.plan is None:
        check = FileCheck(batch.endpoint)
        try:
            plan = _plan(batch, check, seconds)
        except NightshiftError as error:
            failed = batches.transition(batch, "failed", errors=_faults(error), counts=RequestCounts(check.lines))
            return failed or batches.get(batch.account_id, batch.id)
    if plan is not None and plan.route.mode == "batch":
        return batches.put_plan(batch, plan) or batches.get(batch.account_id, batch.id)
    begun = batches.transition(batch, "in_progress", plan=plan)
    return begun or batches.get(batch.account_id, batch.id)


def _plan(batch: Batch, check: FileCheck, seconds: float) -> Planned:
    file = files.get(batch.account_id, batch.input_file_id, param="input_file_id")
    inspected = inspection.inspect(file, batch.endpoint, seconds, check)
    if inspected is None:
        raise TimeoutError("the file could not be checked in one invocation")
    quota.check(batch.account_id, inspected.lines, besides=batch.id)
    return planning.write_plan(batch.account_id, batch.id, inspected)


def _faults(error: NightshiftError) -> tuple[Fault, ...]:
    """The faults of single lines, or the one fault of the whole file."""
    if isinstance(error, InvalidFileError) and error.details:
        return tuple(error.details)
    return (Fault(error.code or "invalid_request", error.message, error.param),)
