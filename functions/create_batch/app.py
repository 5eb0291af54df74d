"""``POST /v1/batches``: check the file, lock a route, record the batch, start its execution."""

import hashlib
import json
import time
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.accounts import store as accounts
from nightshift.api.app import account_of, before_snapshot, create_app, json_response, parse_body, serve
from nightshift.api.bodies import CreateBatch
from nightshift.batches import store as batches
from nightshift.batches.resources import batch_object
from nightshift.core import aws, settings
from nightshift.core.errors import BadRequestError, ConflictError, NightshiftError, NotFoundError, UnavailableError
from nightshift.core.ids import new_id
from nightshift.core.log import logger
from nightshift.files import store as files
from nightshift.files.record import File
from nightshift.input import inspection as intake
from nightshift.webhooks import addresses

app = create_app()


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return serve(app, event, context)


@before_snapshot
def prepare() -> None:
    aws.client("dynamodb")
    aws.client("s3")
    aws.client("stepfunctions")


# How long an Idempotency-Key is remembered.
IDEMPOTENCY_SECONDS = 24 * 3600
MAX_IDEMPOTENCY_KEY = 255


@app.post("/batches")
def create_batch() -> Response[str]:
    wanted = parse_body(app, CreateBatch)
    account_id = account_of(app)
    key = app.current_event.headers.get("idempotency-key")
    batch_id = _create_once(account_id, key, wanted) if key else _create(account_id, wanted, new_id("batch"))
    item = batches.get(account_id, batch_id)
    return json_response(batch_object({**item, "request_counts": batches.live_counts(item)}))


def _create_once(account_id: str, key: str, wanted: CreateBatch) -> str:
    """The batch that this key made, now or within the last 24 hours.

    Raises:
        ConflictError: the key came with another body, or the first call with it is still at work.
    """
    from aws_lambda_powertools.utilities import idempotency
    from aws_lambda_powertools.utilities.idempotency import exceptions

    if len(key) > MAX_IDEMPOTENCY_KEY:
        message = f"The Idempotency-Key has more than {MAX_IDEMPOTENCY_KEY} characters."
        raise BadRequestError(message, code="invalid_value", param="Idempotency-Key")

    def create(*, call: dict[str, Any]) -> str:
        record, batch_id = _id_for(account_id, key, wanted)
        if _exists(account_id, batch_id):
            return batch_id  # made by a call that was killed; should it not be started yet, Sweep does that
        try:
            return _create(account_id, wanted, batch_id)
        except NightshiftError:
            # Refused, and told: the key is as if it had never come.
            aws.client("dynamodb").delete_item(TableName=settings.idempotency_table(), Key=aws.item({"id": record}))
            raise

    config = idempotency.IdempotencyConfig(
        event_key_jmespath="[account_id, key]",
        payload_validation_jmespath="body",
        expires_after_seconds=IDEMPOTENCY_SECONDS,
        hash_function="sha256",
        lambda_context=app.lambda_context,
    )
    create_once = idempotency.idempotent_function(
        create,
        data_keyword_argument="call",
        key_prefix="create_batch",
        config=config,
        persistence_store=idempotency.DynamoDBPersistenceLayer(
            table_name=settings.idempotency_table(), boto3_client=aws.client("dynamodb")
        ),
    )
    try:
        batch_id: str = create_once(call={"account_id": account_id, "key": key, "body": wanted.model_dump()})
    except exceptions.IdempotencyValidationError:
        raise _key_reused() from None
    except exceptions.IdempotencyAlreadyInProgressError:
        message = "The first call with this Idempotency-Key is still at work. Try again in a moment."
        raise ConflictError(message, code="idempotency_in_progress", param="Idempotency-Key") from None
    return batch_id


def _id_for(account_id: str, key: str, wanted: CreateBatch) -> tuple[str, str]:
    """The id of the key's record, and that of its batch, which is set before the batch is made: should this call be
    killed, the next one makes no other.

    Raises:
        ConflictError: the key came with another body.
    """
    table, dynamodb = settings.idempotency_table(), aws.client("dynamodb")
    now = int(time.time())
    item = {
        "id": f"batch#{account_id}#{hashlib.sha256(key.encode()).hexdigest()}",
        "batch_id": new_id("batch"),
        "body": wanted.model_dump_json(),
        "expiration": now + IDEMPOTENCY_SECONDS,
    }
    try:
        dynamodb.put_item(
            TableName=table,
            Item=aws.item(item),
            ConditionExpression="attribute_not_exists(id) OR expiration < :now",
            ExpressionAttributeValues=aws.item({":now": now}),
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        found = dynamodb.get_item(TableName=table, Key=aws.item({"id": item["id"]}), ConsistentRead=True)
        first = aws.plain(found["Item"])
        if first["body"] != item["body"]:
            raise _key_reused() from None
        item = first
    return str(item["id"]), str(item["batch_id"])


def _key_reused() -> ConflictError:
    message = "This Idempotency-Key was used with another body."
    return ConflictError(message, code="idempotency_key_reused", param="Idempotency-Key")


def _exists(account_id: str, batch_id: str) -> bool:
    try:
        batches.get(account_id, batch_id)
    except NotFoundError:
        return False
    return True


def _create(account_id: str, wanted: CreateBatch, batch_id: str) -> str:
    if wanted.callback_url is not None:
        addresses.check_url(wanted.callback_url, allow_local=settings.allow_local_webhooks())
    file = _input_file(account_id, wanted.input_file_id)
    _check_quotas(account_id)
    taken = intake.inspect(file, settings.sync_validation_seconds())
    created_at = int(time.time())
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
    return batch_id


def _check_quotas(account_id: str) -> None:
    active = batches.open_of(account_id)
    queued = sum(batch.get("lines", 0) for batch in active)
    accounts.get(account_id).quotas.check_batches(len(active), queued)


def _input_file(account_id: str, file_id: str) -> File:
    file = files.get(account_id, file_id, param="input_file_id")
    if file.status != "processed":
        raise NotFoundError("The file's bytes have not arrived yet.", code="file_not_found", param="input_file_id")
    if file.purpose != "batch":
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
