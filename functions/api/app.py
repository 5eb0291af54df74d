"""Every endpoint but create batch: files, batches, models, the account's webhook."""

import time
import urllib.parse
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.api.app import account_of, before_snapshot, create_app, json_response, serve
from nightshift.api.forms import parse_form
from nightshift.api.pages import list_object
from nightshift.api.requests import parse_body, parse_query, validate
from nightshift.api.resources import ModelList, ModelResource
from nightshift.batches import store as batches
from nightshift.batches.cancel import cancel
from nightshift.batches.events import status_event
from nightshift.batches.record import Batch
from nightshift.batches.resources import BatchResource, batch_object
from nightshift.core import aws, settings
from nightshift.core.errors import BadRequestError, ConflictError, NotFoundError
from nightshift.files import store as files
from nightshift.files import uploads
from nightshift.files.resources import (
    FileDeletedResource,
    UploadPartResource,
    file_object,
    presigned_file_object,
    upload_object,
)
from nightshift.routes import store as routes
from nightshift.webhooks import addresses, deliveries
from nightshift.webhooks import sender as webhooks
from nightshift.webhooks.resources import (
    WebhookDeletedResource,
    WebhookResource,
    WebhookSecretResource,
    delivery_object,
)

if TYPE_CHECKING:
    from nightshift.api.bodies import ExpiresAfter

# A delivery whose next try is so long past has lost its message: it may be sent again.
LOST_DELIVERY_SECONDS = 900

app = create_app(other_methods={"/batches": "POST"})


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return serve(app, event, context)


@before_snapshot
def prepare() -> None:
    import nightshift.api.bodies  # noqa: F401

    aws.client("dynamodb")
    aws.client("s3")


@app.post("/files")
def create_file() -> Response[str]:
    from nightshift.api.bodies import FileForm

    if app.current_event.headers.get("content-type", "").lower().startswith("application/json"):
        return _expect_file()
    form = parse_form(app, "file")
    wanted = validate(FileForm, _nested(form.fields))
    if form.content is None:
        raise BadRequestError("The form has no part named file.", code="missing_required_parameter", param="file")
    filename = form.filename or ""
    if not filename.endswith(".jsonl") or len(filename) > 512:
        message = "The file's name must end in .jsonl, and have at most 512 characters."
        raise BadRequestError(message, code="invalid_filename", param="file")
    account_id = account_of(app)
    _check_storage(account_id, len(form.content))
    seconds = _seconds(wanted.expires_after, wanted.ttl_seconds)
    item = files.create(
        account_id,
        filename=filename,
        purpose=wanted.purpose,
        content=form.content,
        expires_at=int(time.time()) + seconds if seconds else None,
        asset_group=wanted.asset_group,
    )
    return json_response(file_object(item))


def _expect_file() -> Response[str]:
    from nightshift.api.bodies import ExpectFile

    wanted = parse_body(app, ExpectFile)
    account_id = account_of(app)
    _check_storage(account_id, wanted.bytes)
    item, url, headers = files.expect(
        account_id,
        filename=wanted.filename,
        purpose=wanted.purpose,
        size=wanted.bytes,
        expires_seconds=_seconds(wanted.expires_after, wanted.ttl_seconds),
        asset_group=wanted.asset_group,
    )
    return json_response(presigned_file_object(item, url, headers))


@app.get("/files")
def list_files() -> Response[str]:
    from nightshift.api.bodies import ListFiles

    query = parse_query(app, ListFiles)
    found, has_more = files.list_page(
        account_of(app),
        limit=query.limit,
        after=query.after,
        ascending=query.order == "asc",
        purpose=query.purpose,
    )
    return json_response(list_object([file_object(item) for item in found], has_more))


@app.get("/files/<file_id>")
def retrieve_file(file_id: str) -> Response[str]:
    return json_response(file_object(files.get(account_of(app), file_id)))


@app.delete("/files/<file_id>")
def delete_file(file_id: str) -> Response[str]:
    account_id = account_of(app)
    files.get(account_id, file_id)
    readers = [batch.id for batch in batches.open_of(account_id) if batch.input_file_id == file_id]
    if readers:
        message = f"The batch {readers[0]} reads this file. Cancel it, or wait for its end."
        raise ConflictError(message, code="file_in_use", param="file_id")
    files.delete(account_id, file_id)
    return json_response(FileDeletedResource(id=file_id))


@app.get("/files/<file_id>/content")
def download_file(file_id: str) -> Response[str]:
    item = files.get(account_of(app), file_id)
    if item["status"] != "processed":
        raise NotFoundError("The file's bytes have not arrived yet.", code="file_not_found", param="file_id")
    url = files.download_url(item)
    return Response(302, content_type="text/plain", body="", headers={"Location": url, "Cache-Control": "no-store"})


@app.post("/uploads")
def create_upload() -> Response[str]:
    from nightshift.api.bodies import CreateUpload

    wanted = parse_body(app, CreateUpload)
    account_id = account_of(app)
    _check_storage(account_id, wanted.bytes)
    item = uploads.create(
        account_id,
        filename=wanted.filename,
        purpose=wanted.purpose,
        size=wanted.bytes,
        mime_type=wanted.mime_type,
        expires_seconds=_seconds(wanted.expires_after),
    )
    return json_response(upload_object(item))


@app.post("/uploads/<upload_id>/parts")
def add_upload_part(upload_id: str) -> Response[str]:
    upload = uploads.get(account_of(app), upload_id)
    content = parse_form(app, "data").content
    if not content:
        message = "The form has no part named data, or it is empty."
        raise BadRequestError(message, code="missing_required_parameter", param="data")
    part_id = uploads.add_part(upload, content)
    return json_response(UploadPartResource(id=part_id, created_at=int(time.time()), upload_id=upload_id))


@app.post("/uploads/<upload_id>/complete")
def complete_upload(upload_id: str) -> Response[str]:
    from nightshift.api.bodies import CompleteUpload

    wanted = parse_body(app, CompleteUpload)
    account_id = account_of(app)
    upload = uploads.complete(uploads.get(account_id, upload_id), wanted.part_ids, wanted.md5)
    return json_response(upload_object(upload, files.get(account_id, upload["file_id"])))


@app.post("/uploads/<upload_id>/cancel")
def cancel_upload(upload_id: str) -> Response[str]:
    return json_response(upload_object(uploads.cancel(uploads.get(account_of(app), upload_id))))


@app.get("/batches")
def list_batches() -> Response[str]:
    from nightshift.api.bodies import ListBatches

    query = parse_query(app, ListBatches)
    found, has_more = batches.list_page(account_of(app), limit=query.limit, after=query.after, status=query.status)
    return json_response(list_object([_live(batch) for batch in found], has_more))


@app.get("/batches/<batch_id>")
def retrieve_batch(batch_id: str) -> Response[str]:
    return json_response(_live(batches.get(account_of(app), batch_id)))


@app.post("/batches/<batch_id>/cancel")
def cancel_batch(batch_id: str) -> Response[str]:
    return json_response(_live(cancel(account_of(app), batch_id)))


@app.get("/batches/<batch_id>/webhook_deliveries")
def list_webhook_deliveries(batch_id: str) -> Response[str]:
    batches.get(account_of(app), batch_id)
    return json_response(list_object([delivery_object(item) for item in deliveries.of_batch(batch_id)], False))


@app.post("/batches/<batch_id>/webhook_deliveries/<delivery_id>/redeliver")
def redeliver_webhook(batch_id: str, delivery_id: str) -> Response[str]:
    batch = batches.get(account_of(app), batch_id)
    delivery = deliveries.get(batch_id, delivery_id)
    due = delivery.get("next_attempt_at") or delivery["created_at"]
    if delivery["state"] == "pending" and due > time.time() - LOST_DELIVERY_SECONDS:
        message = "The delivery is still being tried; next_attempt_at says when next."
        raise ConflictError(message, code="delivery_pending", param="delivery_id")
    restarted = deliveries.restart(delivery)
    # An ended batch never changes: this is the event that was sent before, byte for byte.
    message = msgspec.json.encode({"detail": status_event(batch)}).decode()
    aws.client("sqs").send_message(QueueUrl=settings.webhook_queue_url(), MessageBody=message)
    return json_response(delivery_object(restarted))


@app.get("/models")
def list_models() -> Response[str]:
    models = sorted({route.model for route in routes.all_routes() if route.batch and route.sku.active})
    return json_response(ModelList(data=[ModelResource(id=model) for model in models]))


# A model's name may have slashes in it.
@app.get("/models/.+")
def retrieve_model() -> Response[str]:
    model = urllib.parse.unquote(app.current_event.path.removeprefix("/models/"))
    if not any(route.batch and route.sku.active for route in routes.for_model(model)):
        raise NotFoundError("No such model.", code="model_not_found", param="model")
    return json_response(ModelResource(id=model))


@app.get("/webhook")
def retrieve_webhook() -> Response[str]:
    url = webhooks.receiver(account_of(app)).url
    if url is None:
        raise NotFoundError("The account has no webhook.", code="webhook_not_found")
    return json_response(WebhookResource(url=url))


@app.put("/webhook")
def put_webhook() -> Response[str]:
    from nightshift.api.bodies import PutWebhook

    url = parse_body(app, PutWebhook).url
    addresses.check_url(url, allow_local=settings.allow_local_webhooks(), param="url")
    secret = webhooks.put_url(account_of(app), url)
    return json_response(WebhookSecretResource(url=url, secret=secret))


@app.delete("/webhook")
def delete_webhook() -> Response[str]:
    webhooks.delete_url(account_of(app))
    return json_response(WebhookDeletedResource())


@app.post("/webhook/rotate")
def rotate_webhook() -> Response[str]:
    account_id = account_of(app)
    secret = webhooks.rotate(account_id)
    return json_response(WebhookSecretResource(url=webhooks.receiver(account_id).url, secret=secret))


@app.get("/openapi.json")
def openapi() -> Response[str]:
    return Response(200, content_type="application/json", body=_shipped("openapi.json"))


@app.get("/docs")
def docs() -> Response[str]:
    return Response(200, content_type="text/html; charset=utf-8", body=_shipped("docs.html"))


def _shipped(name: str) -> str:
    """A file that the package carries beside its modules."""
    return resources.files("nightshift.api").joinpath(name).read_text(encoding="utf-8")


def _nested(fields: dict[str, str]) -> dict[str, Any]:
    """A form's fields with ``name[part]`` as objects, and numbers where a number is meant."""
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        outer, bracket, rest = name.partition("[")
        if bracket and rest.endswith("]"):
            inner = nested.setdefault(outer, {})
            if isinstance(inner, dict):
                inner[rest[:-1]] = int(value) if rest == "seconds]" and value.isdecimal() else value
        else:
            nested[name] = value
    return nested


def _seconds(expires_after: "ExpiresAfter | None", ttl_seconds: int | None = None) -> int | None:
    """How long a file is to live; the OpenAI way of saying it wins over ours."""
    return expires_after.seconds if expires_after else ttl_seconds


def _check_storage(account_id: str, more: int) -> None:
    Quotas.of(accounts.get(account_id)).check_storage(files.stored_bytes(account_id), more)


def _live(batch: Batch) -> BatchResource:
    return batch_object(batch, batches.live_counts(batch))
