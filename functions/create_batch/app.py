"""The two calls that make a batch: ``POST /v1/batches`` and ``POST /v1/batches/{batch_id}/retry``."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.api.app import account_of, before_snapshot, create_app, json_response, serve
from nightshift.api.bodies import CreateBatch, RetryBatch
from nightshift.api.requests import parse_body
from nightshift.batches import create
from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.batches.resources import batch_object
from nightshift.batches.retry import retry
from nightshift.core import aws, settings
from nightshift.core.errors import BadRequestError
from nightshift.webhooks import addresses

MAX_IDEMPOTENCY_KEY = 255

app = create_app()


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return serve(app, event, context)


@before_snapshot
def prepare() -> None:
    aws.client("dynamodb")
    aws.client("s3")
    aws.client("stepfunctions")


@app.post("/batches")
def create_batch() -> Response[str]:
    body = parse_body(app, CreateBatch)
    if body.callback_url is not None:
        addresses.check_url(body.callback_url, allow_local=settings.allow_local_webhooks())
    new = create.NewBatch(
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        completion_window=body.completion_window,
        callback_url=body.callback_url,
        metadata=body.metadata,
        output_expires_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
    )
    batch = create.create(account_of(app), new, _idempotency_key() or body.idempotency_key)
    return _shown(batch)


@app.post("/batches/<batch_id>/retry")
def retry_batch(batch_id: str) -> Response[str]:
    body = parse_body(app, RetryBatch)
    return _shown(retry(account_of(app), batch_id, _idempotency_key() or body.idempotency_key))


def _shown(batch: Batch) -> Response[str]:
    return json_response(batch_object(batch, batches.progress(batch)))


def _idempotency_key() -> str | None:
    key = app.current_event.headers.get("idempotency-key")
    if key and len(key) > MAX_IDEMPOTENCY_KEY:
        message = f"The Idempotency-Key has more than {MAX_IDEMPOTENCY_KEY} characters."
        raise BadRequestError(message, code="invalid_value", param="Idempotency-Key")
    return key or None
