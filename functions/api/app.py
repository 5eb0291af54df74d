"""Every endpoint but create batch: files, batches, models, the account's webhook."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext
from nightshift import addresses, batches, files, routes, settings, webhooks
from nightshift.errors import BadRequestError, NotFoundError
from nightshift.http import account_of, create_app, json_response, parse_body, parse_form, parse_query, serve
from nightshift.objects import batch_object, file_object, list_object
from nightshift.schemas import ListBatches, PutWebhook
from nightshift.status import TERMINAL

app = create_app()


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return serve(app, event, context)


@app.post("/files")
def create_file() -> Response[str]:
    form = parse_form(app)
    if form.content is None:
        raise BadRequestError("The form has no part named file.", code="missing_required_parameter", param="file")
    purpose = form.fields.get("purpose")
    if purpose != "batch":
        code = "invalid_value" if purpose else "missing_required_parameter"
        raise BadRequestError("purpose must be batch.", code=code, param="purpose")
    if not form.content:
        raise BadRequestError("The file is empty.", code="empty_file", param="file")
    filename = form.filename or "input.jsonl"
    item = files.create(account_of(app), filename=filename, purpose=purpose, content=form.content)
    return json_response(file_object(item))


@app.get("/files/<file_id>")
def retrieve_file(file_id: str) -> Response[str]:
    return json_response(file_object(files.get(account_of(app), file_id)))


@app.get("/files/<file_id>/content")
def download_file(file_id: str) -> Response[str]:
    url = files.download_url(files.get(account_of(app), file_id))
    return Response(302, content_type="text/plain", body="", headers={"Location": url, "Cache-Control": "no-store"})


@app.get("/batches")
def list_batches() -> Response[str]:
    query = parse_query(app, ListBatches)
    found, has_more = batches.list_page(account_of(app), limit=query.limit, after=query.after)
    return json_response(list_object([_live(item) for item in found], has_more))


@app.get("/batches/<batch_id>")
def retrieve_batch(batch_id: str) -> Response[str]:
    return json_response(_live(batches.get(account_of(app), batch_id)))


@app.post("/batches/<batch_id>/cancel")
def cancel_batch(batch_id: str) -> Response[str]:
    account_id = account_of(app)
    while True:
        item = batches.get(account_id, batch_id)
        if item["status"] == "cancelling" or item["status"] in TERMINAL:
            return json_response(_live(item))
        cancelled = batches.transition(account_id, batch_id, "cancelling", expected=item["status"])
        if cancelled is not None:
            return json_response(_live(cancelled))


@app.get("/models")
def list_models() -> Response[str]:
    models = sorted({route.model for route in routes.all_routes() if route.batch and route.sku.active})
    return json_response({"object": "list", "data": [_model_object(model) for model in models]})


@app.get("/models/<model>")
def retrieve_model(model: str) -> Response[str]:
    if not any(route.batch and route.sku.active for route in routes.for_model(model)):
        raise NotFoundError("No such model.", code="model_not_found", param="model")
    return json_response(_model_object(model))


@app.get("/webhook")
def retrieve_webhook() -> Response[str]:
    url = webhooks.receiver(account_of(app)).url
    if url is None:
        raise NotFoundError("The account has no webhook.", code="webhook_not_found")
    return json_response({"object": "webhook", "url": url})


@app.put("/webhook")
def put_webhook() -> Response[str]:
    url = parse_body(app, PutWebhook).url
    addresses.check_url(url, allow_local=settings.allow_local_webhooks(), param="url")
    secret = webhooks.put_url(account_of(app), url)
    return json_response({"object": "webhook", "url": url, "secret": secret})


@app.delete("/webhook")
def delete_webhook() -> Response[str]:
    webhooks.delete_url(account_of(app))
    return json_response({"object": "webhook", "deleted": True})


@app.post("/webhook/rotate")
def rotate_webhook() -> Response[str]:
    account_id = account_of(app)
    secret = webhooks.rotate(account_id)
    return json_response({"object": "webhook", "url": webhooks.receiver(account_id).url, "secret": secret})


def _live(item: dict[str, Any]) -> dict[str, Any]:
    return batch_object({**item, "request_counts": batches.live_counts(item)})


def _model_object(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "nightshift"}
