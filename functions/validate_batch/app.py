"""First state of ``run_batch``: the batch has a plan and is in progress, or it has ended, or it is being cancelled."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.batches import store as batches
from nightshift.core import settings
from nightshift.core.errors import InvalidFileError, NightshiftError
from nightshift.core.log import logger
from nightshift.files import store as files
from nightshift.input import inspection as intake
from nightshift.input import plan

# Left over for writing the plan and the status.
MARGIN_SECONDS = 30


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Takes and returns ``{"account_id", "batch_id"}``; adds ``status``; ``bucket`` and ``plan`` for the Map, and
    ``chunks``, where the Map puts how they ended."""
    account_id, batch_id = event["account_id"], event["batch_id"]
    logger.append_keys(batch_id=batch_id)
    batch = batches.get(account_id, batch_id)
    if batch["status"] == "validating":
        batch = _begin(batch, context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)
    if batch["status"] == "in_progress" and plan.read(batch_id) is None:
        logger.warning("plan made again")
        plan.write(batch_id, intake.plan_again(batch))
    logger.info("batch validated", status=batch["status"], lines=batch.get("lines"))
    return {
        "account_id": account_id,
        "batch_id": batch_id,
        "status": batch["status"],
        "bucket": settings.bucket(),
        "plan": plan.key(batch_id),
        "chunks": [],
    }


def _begin(batch: dict[str, Any], seconds: float) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "lines" not in batch:
        try:
            fields = _validate(batch, seconds)
        except NightshiftError as error:
            errors = _errors(error)
            failed = batches.transition(
                batch["pk"], batch["sk"], "failed", expected="validating", fields={"errors": errors}
            )
            return failed or batches.get(batch["pk"], batch["sk"])
    begun = batches.transition(batch["pk"], batch["sk"], "in_progress", expected="validating", fields=fields)
    return begun or batches.get(batch["pk"], batch["sk"])


def _validate(batch: dict[str, Any], seconds: float) -> dict[str, Any]:
    file = files.get(batch["pk"], batch["input_file_id"], param="input_file_id")
    taken = intake.inspect(file, seconds)
    if taken is None:
        raise TimeoutError("the file could not be checked in one invocation")
    return intake.plan_fields(batch["pk"], batch["sk"], taken)


def _errors(error: NightshiftError) -> list[dict[str, Any]]:
    """A batch's ``errors``: every wrong line, or the one thing that is wrong with the whole."""
    if isinstance(error, InvalidFileError) and error.details:
        return error.details
    return [{"code": error.code, "message": error.message, "param": error.param, "line": None}]
