"""Every endpoint but create batch: files, batches, models, the account's webhook."""

import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift.api import site
from nightshift.api.app import account_of, before_snapshot, create_app, json_response, serve
from nightshift.api.content import content_response
from nightshift.api.forms import nested, parse_form
from nightshift.api.pages import list_object
from nightshift.api.requests import parse_body, parse_query, validate
from nightshift.api.resources import ModelList, model_object
from nightshift.batches import inputs, visits
from nightshift.batches import store as batches
from nightshift.batches.cancel import cancel
from nightshift.batches.record import Batch
from nightshift.batches.resources import BatchResource, batch_object, visit_object
from nightshift.core import aws, settings
from nightshift.core.errors import BadRequestError, NotFoundError
from nightshift.files import create, uploads
from nightshift.files import store as files
from nightshift.files.create import NewFile
from nightshift.files.name import check_name
from nightshift.files.record import Upload
from nightshift.files.resources import (
    FileDeletedResource,
    PresignedPartResource,
    UploadPartResource,
    file_object,
    presigned_file_object,
    upload_object,
)
from nightshift.routes import store as routes
from nightshift.webhooks import addresses, deliveries, receivers
from nightshift.webhooks.redeliver import redeliver
from nightshift.webhooks.resources import (
    WebhookDeletedResource,
    WebhookResource,
    WebhookSecretResource,
    delivery_object,
)

if TYPE_CHECKING:
    from nightshift.api.bodies import ExpectFile, FileForm

# `make` builds it from console/.
_SITE = Path(__file__).parent / "site"

app = create_app(other_methods={r"/batches(/[^/]+/retry)?": "POST"})


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

    if _is_json():
        return _create_presigned_file()
    form = parse_form(app, "file")
    fields = validate(FileForm, nested(form.fields))
    new = _new_file(fields, check_name(form.filename, "file"))
    return json_response(file_object(create.create_file(account_of(app), new, form.content)))


def _create_presigned_file() -> Response[str]:
    from nightshift.api.bodies import ExpectFile

    body = parse_body(app, ExpectFile)
    new = _new_file(body, check_name(body.filename, "filename"))
    return json_response(presigned_file_object(create.create_presigned(account_of(app), new, body.bytes)))


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
    return json_response(list_object([file_object(file) for file in found], has_more))


@app.get("/files/<file_id>")
def retrieve_file(file_id: str) -> Response[str]:
    return json_response(file_object(files.get(account_of(app), file_id)))


@app.delete("/files/<file_id>")
def delete_file(file_id: str) -> Response[str]:
    inputs.delete_file(account_of(app), file_id)
    return json_response(FileDeletedResource(id=file_id))


@app.route("/files/<file_id>/content", method=["GET", "HEAD"])
def download_file(file_id: str) -> Response[str]:
    file = files.get(account_of(app), file_id)
    if file.status != "processed":
        message = "The file's bytes have not arrived yet: upload them to its upload_url first."
        raise NotFoundError(message, code="file_not_found", param="file_id")
    return content_response(app.current_event.http_method, app.current_event.headers, file)


@app.post("/uploads")
def create_upload() -> Response[str]:
    from nightshift.api.bodies import CreateUpload

    body = parse_body(app, CreateUpload)
    expires_seconds = body.expires_after.seconds if body.expires_after else None
    name = check_name(body.filename, "filename")
    new = NewFile(filename=name, purpose=body.purpose, expires_seconds=expires_seconds)
    return json_response(upload_object(uploads.create(account_of(app), new, size=body.bytes, mime_type=body.mime_type)))


@app.post("/uploads/<upload_id>/parts")
def add_upload_part(upload_id: str) -> Response[str]:
    upload = uploads.get(account_of(app), upload_id)
    if _is_json():
        return _create_presigned_part(upload)
    content = parse_form(app, "data").content
    if not content:
        raise BadRequestError("The part named 'data' is empty.", code="invalid_value", param="data")
    part_id = uploads.add_part(upload, content)
    return json_response(UploadPartResource(id=part_id, created_at=int(time.time()), upload_id=upload_id))


def _create_presigned_part(upload: Upload) -> Response[str]:
    from nightshift.api.bodies import ExpectPart

    part = uploads.presign_part(upload, parse_body(app, ExpectPart).bytes)
    return json_response(
        PresignedPartResource(
            id=part.id,
            created_at=int(time.time()),
            upload_id=upload.id,
            upload_url=part.url,
            upload_headers=part.headers,
        )
    )


def _is_json() -> bool:
    return app.current_event.headers.get("content-type", "").lower().startswith("application/json")


@app.post("/uploads/<upload_id>/complete")
def complete_upload(upload_id: str) -> Response[str]:
    from nightshift.api.bodies import CompleteUpload

    body = parse_body(app, CompleteUpload)
    upload = uploads.get(account_of(app), upload_id)
    return json_response(upload_object(*uploads.complete(upload, body.part_ids, body.md5)))


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


@app.get("/batches/<batch_id>/visits")
def list_visits(batch_id: str) -> Response[str]:
    from nightshift.api.bodies import ListVisits

    query = parse_query(app, ListVisits)
    batches.get(account_of(app), batch_id)
    found, has_more = visits.page(batch_id, limit=query.limit, after=query.after)
    return json_response(list_object([visit_object(*each) for each in found], has_more))


@app.get("/batches/<batch_id>/webhook_deliveries")
def list_webhook_deliveries(batch_id: str) -> Response[str]:
    batches.get(account_of(app), batch_id)
    return json_response(list_object([delivery_object(each) for each in deliveries.of_batch(batch_id)], False))


@app.post("/batches/<batch_id>/webhook_deliveries/<delivery_id>/redeliver")
def redeliver_webhook(batch_id: str, delivery_id: str) -> Response[str]:
    return json_response(delivery_object(redeliver(account_of(app), batch_id, delivery_id)))


@app.get("/models")
def list_models() -> Response[str]:
    usable = [route for route in routes.all_routes() if route.is_usable]
    models = sorted({route.model for route in usable})
    return json_response(ModelList(data=[model_object(name, usable) for name in models]))


# A model's name may have slashes in it.
@app.get("/models/.+")
def retrieve_model() -> Response[str]:
    model = urllib.parse.unquote(app.current_event.path.removeprefix("/models/"))
    usable = [route for route in routes.for_model(model) if route.is_usable]
    if not usable:
        raise NotFoundError("No such model.", code="model_not_found", param="model")
    return json_response(model_object(model, usable))


@app.get("/webhook")
def retrieve_webhook() -> Response[str]:
    url = receivers.get(account_of(app)).url
    if url is None:
        raise NotFoundError("Webhook not found: the account has no URL set.", code="webhook_not_found")
    return json_response(WebhookResource(url=url))


@app.put("/webhook")
def put_webhook() -> Response[str]:
    from nightshift.api.bodies import PutWebhook

    url = parse_body(app, PutWebhook).url
    addresses.check_url(url, allow_local=settings.allow_local_webhooks(), param="url")
    secret = receivers.set_url(account_of(app), url)
    return json_response(WebhookSecretResource(url=url, secret=secret))


@app.delete("/webhook")
def delete_webhook() -> Response[str]:
    receivers.delete_url(account_of(app))
    return json_response(WebhookDeletedResource())


@app.post("/webhook/rotate")
def rotate_webhook() -> Response[str]:
    account_id = account_of(app)
    secret = receivers.rotate_secret(account_id)
    return json_response(WebhookSecretResource(url=receivers.get(account_id).url, secret=secret))


@app.get("/openapi.json")
def openapi() -> Response[str]:
    return site.openapi()


@app.get("/docs", compress=True)
def docs() -> Response[str]:
    return site.page(_SITE, "docs")


@app.get("/console", compress=True)
def console() -> Response[str]:
    if not settings.has_console():
        raise NotFoundError("Not found: this stack has no console.", code="unknown_url")
    return site.page(_SITE, "console")


@app.get("/console/assets/<name>", compress=True)
def console_asset(name: str) -> Response[str]:
    return site.asset(_SITE, name)


def _new_file(body: "FileForm | ExpectFile", filename: str) -> NewFile:
    """The file that a body describes. OpenAI's ``expires_after`` takes precedence over ``ttl_seconds``."""
    return NewFile(
        filename=filename,
        purpose=body.purpose,
        expires_seconds=body.expires_after.seconds if body.expires_after else body.ttl_seconds,
        asset_group=body.asset_group,
    )


def _live(batch: Batch) -> BatchResource:
    return batch_object(batch, batches.progress(batch))
