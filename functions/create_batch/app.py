"""``POST /v1/batches``: check the file, lock a route, record the batch, start its execution."""

import json
import time
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift import addresses, aws, batches, files, intake, settings
from nightshift.errors import BadRequestError, NotFoundError, UnavailableError
from nightshift.http import account_of, create_app, json_response, parse_body, serve
from nightshift.ids import new_id
from nightshift.log import logger
from nightshift.objects import batch_object
from nightshift.schemas import CreateBatch

app = create_app()


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return serve(app, event, context)


@app.post("/batches")
def create_batch() -> Response[str]:
    wanted = parse_body(app, CreateBatch)
    if wanted.callback_url is not None:
        addresses.check_url(wanted.callback_url, allow_local=settings.allow_local_webhooks())
    account_id = account_of(app)
    file = _input_file(account_id, wanted.input_file_id)
    taken = intake.inspect(file, settings.sync_validation_seconds())
    batch_id, created_at = new_id("batch"), int(time.time())
    item: dict[str, Any] = {
        "pk": account_id,
        "sk": batch_id,
        "status": "validating",
        "input_file_id": wanted.input_file_id,
        "endpoint": wanted.endpoint,
        "completion_window": wanted.completion_window,
        "created_at": created_at,
        "expires_at": created_at + settings.completion_window_seconds(),
        "metadata": wanted.metadata,
        "callback_url": wanted.callback_url,
        "output_expires_seconds": wanted.output_expires_after and wanted.output_expires_after.seconds,
    }
    if taken is not None:
        item |= intake.plan_fields(account_id, batch_id, taken)
    batches.put(item)
    _start(account_id, batch_id)
    logger.info("batch created", batch_id=batch_id, lines=item.get("lines"), validated=taken is not None)
    return json_response(batch_object({**item, "request_counts": batches.live_counts(item)}))


def _input_file(account_id: str, file_id: str) -> dict[str, Any]:
    try:
        file = files.get(account_id, file_id)
    except NotFoundError:
        raise NotFoundError("No such file.", code="file_not_found", param="input_file_id") from None
    if file["purpose"] != "batch":
        raise BadRequestError("The file's purpose is not batch.", code="invalid_purpose", param="input_file_id")
    return file


def _start(account_id: str, batch_id: str) -> None:
    try:
        aws.client("stepfunctions").start_execution(
            stateMachineArn=settings.state_machine(),
            name=batch_id,
            input=json.dumps({"account_id": account_id, "batch_id": batch_id}),
        )
    except Exception as error:
        logger.exception("execution not started", batch_id=batch_id)
        batches.withdraw(account_id, batch_id)
        raise UnavailableError("The batch could not be started. Nothing was recorded; try again.") from error
