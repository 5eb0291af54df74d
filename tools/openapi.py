"""The OpenAPI 3.1 document, from the request models and the tables below, and the JSON Schema of the events.

``make openapi`` writes it to ``nightshift/api/openapi.json``, which the API serves, and the events' schema into
``docs``. Tests compare it with the code, with the functions' routes and with the template's.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from nightshift.api import bodies as schemas
from nightshift.api.app import PUBLIC_PATHS
from nightshift.batches import events
from nightshift.batches.status import Status
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "layers/nightshift/nightshift/api/openapi.json"
EVENT_SCHEMA = ROOT / "docs/event.schema.json"


class _Answer(BaseModel):
    # Every field is always there, null when unset.
    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class ErrorDetail(_Answer):
    code: str
    message: str
    param: str | None
    line: Annotated[int | None, Field(description="Counted from 1; null when the whole file is meant.")]


class ErrorBody(_Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class FileErrorBody(ErrorBody):
    details: list[ErrorDetail]


class Error(_Answer):
    """Every error, whoever answers it."""

    error: ErrorBody


class BatchRefusal(_Answer):
    """An error of create batch: what is wrong with a file is told line by line."""

    error: FileErrorBody | ErrorBody


class File(_Answer):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["uploaded", "processed"]
    status_details: None
    asset_group: str | None


class ExpectedFile(File):
    """A file whose bytes the caller puts into S3 itself."""

    upload_url: Annotated[str, Field(description="Takes one PUT of exactly `bytes` bytes.")]
    upload_headers: Annotated[dict[str, str], Field(description="Headers that the PUT has to carry.")]
    upload_expires_at: int


class FileDeleted(_Answer):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class FileList(_Answer):
    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Upload(_Answer):
    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch"]
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: File | None


class UploadPart(_Answer):
    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


class RequestCounts(_Answer):
    total: int
    completed: int
    failed: int


class InputTokensDetails(_Answer):
    cached_tokens: int


class OutputTokensDetails(_Answer):
    reasoning_tokens: int


class Usage(_Answer):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchErrors(_Answer):
    object: Literal["list"]
    data: list[ErrorDetail]


class Batch(_Answer):
    id: str
    object: Literal["batch"]
    endpoint: Literal["/v1/chat/completions"]
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts | None
    usage: Usage | None
    metadata: dict[str, str] | None
    callback_url: str | None


class BatchList(_Answer):
    object: Literal["list"]
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Model(_Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Answer):
    object: Literal["list"]
    data: list[Model]


class Webhook(_Answer):
    object: Literal["webhook"]
    url: str


class WebhookSecret(_Answer):
    """The secret is shown when it is made, and never again; null where it was made before."""

    object: Literal["webhook"]
    url: str | None
    secret: str | None


class DeliveryAttempt(_Answer):
    attempted_at: int
    status_code: Annotated[int | None, Field(description="What the receiver answered; null when it did not.")]
    error: str | None


class WebhookDelivery(_Answer):
    id: str
    object: Literal["webhook_delivery"]
    event_id: Annotated[str, Field(description="The webhook-id of every try.")]
    event_type: str
    url: str
    status: Literal["pending", "succeeded", "failed"]
    created_at: int
    next_attempt_at: int | None
    attempts: list[DeliveryAttempt]


class WebhookDeliveryList(_Answer):
    object: Literal["list"]
    data: list[WebhookDelivery]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhookDeleted(_Answer):
    object: Literal["webhook"]
    deleted: Literal[True]


class EventDetail(_Answer):
    version: Annotated[Literal["1"], Field(description="Of the shape of `detail`.")]
    id: Annotated[str, Field(description="One for each status that a batch enters, however often the event comes.")]
    account_id: str
    created_at: Annotated[int, Field(description="When the batch entered the status, in seconds since 1970.")]
    batch: Annotated[Batch, Field(description="The batch object of the API as it was then.")]


class Event(_Answer):
    """An event on the stack's EventBridge bus. What is not described is EventBridge's own."""

    version: str
    id: Annotated[str, Field(description="EventBridge's own, new each time the event comes: see `detail.id`.")]
    source: Annotated[Literal["nightshift"], Field(description="Whose event it is.")]
    detail_type: Annotated[
        Literal[
            "batch.validating",
            "batch.failed",
            "batch.in_progress",
            "batch.finalizing",
            "batch.completed",
            "batch.expired",
            "batch.cancelling",
            "batch.cancelled",
        ],
        Field(alias="detail-type", description="The status that the batch entered."),
    ]
    account: str
    time: str
    region: str
    resources: Annotated[list[str], Field(description="The batch's id.", min_length=1, max_length=1)]
    detail: Annotated[EventDetail, Field(description="What happened.")]


class _Operation(BaseModel):
    """One call: what it takes, what it answers, and which errors it can meet besides those that any call can."""

    id: str
    summary: str
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    file_part: str = "file"
    query: type[BaseModel] | None = None
    errors: dict[int, str] = {}
    refusal: type[BaseModel] = Error
    links: dict[str, tuple[str, str, str]] = {}


_BAD = {400: "Something in the call is wrong; `message` says what, `param` where."}
_MISSING = {404: "Unknown, deleted, expired or another account's: all the same."}
_FULL = {429: "The account is at its limit. `Retry-After` says when to try again."}
_LARGE = {413: "The body is over the limit for one call; the message names the ways round it."}
_FILE_LINKS = {
    "RetrieveFile": ("retrieveFile", "file_id", "id"),
    "DeleteFile": ("deleteFile", "file_id", "id"),
    "DownloadFile": ("downloadFile", "file_id", "id"),
    "CreateBatch": ("createBatch", "body.input_file_id", "id"),
}
_UPLOAD_LINKS = {
    "AddUploadPart": ("addUploadPart", "upload_id", "id"),
    "CompleteUpload": ("completeUpload", "upload_id", "id"),
    "CancelUpload": ("cancelUpload", "upload_id", "id"),
}
_BATCH_LINKS = {
    "RetrieveBatch": ("retrieveBatch", "batch_id", "id"),
    "CancelBatch": ("cancelBatch", "batch_id", "id"),
    "ListWebhookDeliveries": ("listWebhookDeliveries", "batch_id", "id"),
}

OPERATIONS: dict[tuple[str, str], _Operation] = {
    ("post", "/files"): _Operation(
        id="createFile",
        summary="Upload an input file, or (JSON) get a URL to put a big one to",
        answer=File,
        body=schemas.ExpectFile,
        form=schemas.FileForm,
        errors=_BAD | _LARGE | _FULL,
        links=_FILE_LINKS,
    ),
    ("get", "/files"): _Operation(
        id="listFiles", summary="List files", answer=FileList, query=schemas.ListFiles, errors=_BAD
    ),
    ("get", "/files/{file_id}"): _Operation(
        id="retrieveFile", summary="Read a file's object", answer=File, errors=_MISSING
    ),
    ("delete", "/files/{file_id}"): _Operation(
        id="deleteFile",
        summary="Delete a file",
        answer=FileDeleted,
        errors=_MISSING | {409: "`file_in_use`: a batch that has not ended reads it."},
    ),
    ("get", "/files/{file_id}/content"): _Operation(
        id="downloadFile", summary="A redirect to the file's bytes", errors=_MISSING
    ),
    ("post", "/uploads"): _Operation(
        id="createUpload",
        summary="Begin an upload in parts",
        answer=Upload,
        body=schemas.CreateUpload,
        errors=_BAD | _LARGE | _FULL,
        links=_UPLOAD_LINKS,
    ),
    ("post", "/uploads/{upload_id}/parts"): _Operation(
        id="addUploadPart",
        summary="Send one part",
        answer=UploadPart,
        form=BaseModel,
        file_part="data",
        errors=_BAD | _MISSING | _LARGE,
    ),
    ("post", "/uploads/{upload_id}/complete"): _Operation(
        id="completeUpload",
        summary="Join the parts into a file",
        answer=Upload,
        body=schemas.CompleteUpload,
        errors=_BAD | _MISSING | _LARGE,
    ),
    ("post", "/uploads/{upload_id}/cancel"): _Operation(
        id="cancelUpload", summary="Give an upload up", answer=Upload, errors=_BAD | _MISSING
    ),
    ("post", "/batches"): _Operation(
        id="createBatch",
        summary="Check a file and start a batch of it",
        answer=Batch,
        body=schemas.CreateBatch,
        errors={
            400: "`batch_invalid_jsonl`, `batch_multiple_models` or `batch_model_not_supported`, with every wrong line "
            "in `details`; or something in the call is wrong.",
            **_MISSING,
            409: "`idempotency_key_reused`, or `idempotency_in_progress`.",
            **_LARGE,
            **_FULL,
            503: "`batch_routing_unavailable`: no route of the model is active.",
        },
        refusal=BatchRefusal,
        links=_BATCH_LINKS,
    ),
    ("get", "/batches"): _Operation(
        id="listBatches", summary="List batches, newest first", answer=BatchList, query=schemas.ListBatches, errors=_BAD
    ),
    ("get", "/batches/{batch_id}"): _Operation(
        id="retrieveBatch", summary="Read a batch", answer=Batch, errors=_MISSING, links=_BATCH_LINKS
    ),
    ("post", "/batches/{batch_id}/cancel"): _Operation(
        id="cancelBatch",
        summary="Cancel a batch; one that has ended is returned as it is",
        answer=Batch,
        errors=_MISSING,
    ),
    ("get", "/batches/{batch_id}/webhook_deliveries"): _Operation(
        id="listWebhookDeliveries",
        summary="What happened to the batch's webhook",
        answer=WebhookDeliveryList,
        errors=_MISSING,
    ),
    ("post", "/batches/{batch_id}/webhook_deliveries/{delivery_id}/redeliver"): _Operation(
        id="redeliverWebhook",
        summary="Send the webhook again: the same id and body, all tries anew",
        answer=WebhookDelivery,
        errors=_MISSING | {409: "`delivery_pending`: it is still being tried."},
    ),
    ("get", "/models"): _Operation(id="listModels", summary="Models that can be used in a batch", answer=ModelList),
    ("get", "/models/{model}"): _Operation(id="retrieveModel", summary="Read a model", answer=Model, errors=_MISSING),
    ("get", "/webhook"): _Operation(
        id="retrieveWebhook", summary="The account's default webhook", answer=Webhook, errors=_MISSING
    ),
    ("put", "/webhook"): _Operation(
        id="putWebhook",
        summary="Set the account's default webhook",
        answer=WebhookSecret,
        body=schemas.PutWebhook,
        errors=_BAD | _LARGE,
    ),
    ("delete", "/webhook"): _Operation(id="deleteWebhook", summary="Remove the default webhook", answer=WebhookDeleted),
    ("post", "/webhook/rotate"): _Operation(
        id="rotateWebhook",
        summary="A new signing secret; the old one stays valid beside it for 24 hours",
        answer=WebhookSecret,
    ),
    ("get", "/openapi.json"): _Operation(id="openapi", summary="This document"),
    ("get", "/docs"): _Operation(id="docs", summary="This document as a page"),
}
_ANY_CALL = {
    401: "The API key is missing, malformed or unknown.",
    500: "The server had an error. `x-request-id` tells the operator which.",
}
_EXAMPLES: dict[int, dict[str, Any]] = {
    400: {"message": "limit: Input should be less than or equal to 100.", "code": "invalid_value", "param": "limit"},
    401: {"message": "The API key is not valid.", "code": "invalid_api_key", "param": None},
    404: {"message": "No such batch.", "code": "batch_not_found", "param": "batch_id"},
}


def document() -> dict[str, Any]:
    """The whole document; the same for the same code."""
    models: set[type[BaseModel]] = {ExpectedFile, Error, BatchRefusal}
    for operation in OPERATIONS.values():
        models |= {model for model in (operation.answer, operation.body) if model is not None}
    sent: list[tuple[Any, Literal["validation", "serialization"]]] = [
        (model, "validation" if model.__module__ == schemas.__name__ else "serialization")
        for model in sorted(models, key=str)
    ]
    references, definitions = models_json_schema(sent, ref_template="#/components/schemas/{model}")
    named = {model: reference for (model, _), reference in references.items()}
    paths: dict[str, Any] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method] = _describe(path, operation, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nightshift",
            "version": "1",
            "description": "A Batch API for chat completions: one line in, one line out, in order. "
            "Every answer carries `x-request-id`. Errors have one shape.",
        },
        "servers": [{"url": ".", "description": "Where this document was read, up to and with /v1"}],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def event_schema() -> dict[str, Any]:
    """The JSON Schema of the events on the bus."""
    schema = Event.model_json_schema(mode="serialization")
    for model in (schema, *schema["$defs"].values()):
        # Fields may be added without a new version, so the schema lets unknown ones pass.
        model.pop("additionalProperties", None)
    title = f"Nightshift events, version {events.VERSION}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _describe(path: str, operation: _Operation, named: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary, "parameters": []}
    if path in PUBLIC_PATHS:
        described["security"] = []
    for part in path.split("/"):
        if part.startswith("{"):
            schema = {"type": "string", "minLength": 1}
            described["parameters"].append({"name": part[1:-1], "in": "path", "required": True, "schema": schema})
    if operation.query is not None:
        for name, schema in operation.query.model_json_schema()["properties"].items():
            described["parameters"].append({"name": name, "in": "query", "required": False, "schema": schema})
    if operation.id == "createBatch":
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        described["parameters"].append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    content: dict[str, Any] = {}
    if operation.body is not None:
        content["application/json"] = {"schema": named[operation.body]}
    if operation.form is not None:
        disposition = f'form-data; name="{operation.file_part}"; filename="input.jsonl"'
        file = {
            "contentType": "application/jsonl",
            "headers": {"Content-Disposition": {"schema": {"type": "string"}, "example": disposition}},
        }
        form = _form(operation.form, operation.file_part)
        content["multipart/form-data"] = {"schema": form, "encoding": {operation.file_part: file}}
    if content:
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = _responses(path, operation, named)
    return described


def _form(form: type[BaseModel], file_part: str) -> dict[str, Any]:
    fields = form.model_json_schema() if form is not BaseModel else {}
    properties = {
        name: schema
        for name, schema in fields.get("properties", {}).items()
        if name not in ("expires_after", "ttl_seconds")
    }
    if properties:
        # A form says objects by name[part], and numbers by their digits.
        seconds = {"type": "integer", "minimum": 3600, "maximum": 2_592_000}
        properties |= {
            "expires_after[anchor]": {"const": "created_at", "type": "string"},
            "expires_after[seconds]": seconds,
            "ttl_seconds": seconds,
        }
    properties[file_part] = {"type": "string", "format": "binary"}
    required = [*fields.get("required", []), file_part]
    return {"type": "object", "properties": properties, "required": required}


def _link(target: str, parameter: str, field: str) -> dict[str, Any]:
    """A link to the operation ``target``, whose ``parameter`` (or ``body.`` and a field's name) an answer gives."""
    value = f"$response.body#/{field}"
    name = parameter.removeprefix("body.")
    given = {"parameters": {name: value}} if name == parameter else {"requestBody": {name: value}}
    return {"operationId": target, **given}


def _responses(path: str, operation: _Operation, named: dict[Any, Any]) -> dict[str, Any]:
    identified = {"x-request-id": {"schema": {"type": "string"}, "description": "Name it when asking for help."}}
    if operation.id == "downloadFile":
        location = {"Location": {"schema": {"type": "string", "format": "uri"}}}
        responses = {"302": {"description": "Where the bytes are, for 15 minutes.", "headers": identified | location}}
    else:
        answered: dict[str, Any] = {"description": operation.summary, "headers": identified}
        if operation.answer is not None:
            schema = named[operation.answer]
            if operation.id == "createFile":
                schema = {"anyOf": [named[ExpectedFile], schema]}
            answered["content"] = {"application/json": {"schema": schema}}
        elif operation.id == "docs":
            answered["content"] = {"text/html": {"schema": {"type": "string"}}}
        else:
            answered["content"] = {"application/json": {"schema": {"type": "object"}}}
        if operation.links:
            answered["links"] = {name: _link(*link) for name, link in operation.links.items()}
        responses = {"200": answered}
    errors = operation.errors if path in PUBLIC_PATHS else operation.errors | _ANY_CALL
    for status, description in sorted(errors.items()):
        refusal = operation.refusal if status in (400, 404, 409, 429, 503) else Error
        media: dict[str, Any] = {"schema": named[refusal]}
        if status in _EXAMPLES:
            kind = {"type": "invalid_request_error"}
            media["example"] = {"error": kind | _EXAMPLES[status]}
        headers = dict(identified)
        if status == 429:
            headers["Retry-After"] = {"schema": {"type": "string"}, "description": "Seconds."}
        responses[str(status)] = {
            "description": description,
            "headers": headers,
            "content": {"application/json": media},
        }
    return responses


def main() -> None:
    for path, content in ((DOCUMENT, document()), (EVENT_SCHEMA, event_schema())):
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
