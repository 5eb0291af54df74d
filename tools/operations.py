"""Every call of the API: its summary, and which models and response shapes it takes and returns."""

from dataclasses import dataclass, field
from typing import Any

from nightshift.api.bodies import (
    CompleteUpload,
    CreateBatch,
    CreateUpload,
    ExpectFile,
    ExpectPart,
    FileForm,
    ListBatches,
    ListFiles,
    ListVisits,
    PutWebhook,
    RetryBatch,
)
from nightshift.api.pages import Page
from nightshift.api.resources import ErrorEnvelope, FileErrorEnvelope, ModelList, ModelResource
from nightshift.batches.resources import BatchResource, VisitResource
from nightshift.files.resources import (
    FileDeletedResource,
    FileResource,
    PresignedFileResource,
    PresignedPartResource,
    UploadPartResource,
    UploadResource,
)
from nightshift.webhooks.resources import (
    DeliveryResource,
    WebhookDeletedResource,
    WebhookResource,
    WebhookSecretResource,
)
from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Form:
    """A multipart form: its text fields as a model, and the name of the part that is a file."""

    file_part: str
    fields: type[BaseModel] | None = None


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where a field of the response goes: to a parameter (``to``) or a field of the body of another operation."""

    operation: str
    to: str
    field: str = "id"
    in_body: bool = False


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call. ``errors`` are the ones besides those that every call can have."""

    id: str
    summary: str
    # Of several shapes, the response has one.
    answers: tuple[Any, ...] = ()
    body: type[BaseModel] | None = None
    form: Form | None = None
    query: type[BaseModel] | None = None
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    refusals: tuple[Any, ...] = (ErrorEnvelope,)
    links: dict[str, Link] = field(default_factory=dict)
    # None for a response without a body.
    media_type: str | None = "application/json"
    # Whether the response may be a redirect to S3, and a part of the content.
    redirects: bool = False


_BAD = {400: "The request is invalid: `message` names the cause, `param` the field."}
_MISSING = {404: "Unknown, deleted, expired or another account's: all the same."}
_FULL = {429: "The account is at its limit. `Retry-After` gives the seconds to wait."}
_LARGE = {413: "The body is over the limit for one call; the message names the ways round it."}
_RANGE = {"Range": {"type": "string", "example": "bytes=0-1023"}}
# Whatever a header can hold; an empty one is none.
_IDEMPOTENCY = {"Idempotency-Key": {"type": "string", "maxLength": 255}}
_FILE_LINKS = {
    "RetrieveFile": Link(operation="retrieveFile", to="file_id"),
    "DeleteFile": Link(operation="deleteFile", to="file_id"),
    "DownloadFile": Link(operation="downloadFile", to="file_id"),
    "CreateBatch": Link(operation="createBatch", to="input_file_id", in_body=True),
}
_UPLOAD_LINKS = {
    "AddUploadPart": Link(operation="addUploadPart", to="upload_id"),
    "CompleteUpload": Link(operation="completeUpload", to="upload_id"),
    "CancelUpload": Link(operation="cancelUpload", to="upload_id"),
}
_BATCH_LINKS = {
    "RetrieveBatch": Link(operation="retrieveBatch", to="batch_id"),
    "CancelBatch": Link(operation="cancelBatch", to="batch_id"),
    "RetryBatch": Link(operation="retryBatch", to="batch_id"),
    "ListWebhookDeliveries": Link(operation="listWebhookDeliveries", to="batch_id"),
}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("post", "/files"): Operation(
        id="createFile",
        summary="Upload an input file, or (JSON) get a URL to put a big one to",
        answers=(PresignedFileResource, FileResource),
        body=ExpectFile,
        form=Form(file_part="file", fields=FileForm),
        errors=_BAD | _LARGE | _FULL,
        links=_FILE_LINKS,
    ),
    ("get", "/files"): Operation(
        id="listFiles", summary="List files", answers=(Page[FileResource],), query=ListFiles, errors=_BAD
    ),
    ("get", "/files/{file_id}"): Operation(
        id="retrieveFile", summary="Read a file's object", answers=(FileResource,), errors=_MISSING
    ),
    ("delete", "/files/{file_id}"): Operation(
        id="deleteFile",
        summary="Delete a file",
        answers=(FileDeletedResource,),
        errors=_MISSING | {409: "`file_in_use`: a batch that has not ended reads it."},
    ),
    ("get", "/files/{file_id}/content"): Operation(
        id="downloadFile",
        summary="The file's bytes",
        headers=_RANGE,
        errors=_MISSING,
        media_type="application/jsonl",
        redirects=True,
    ),
    ("head", "/files/{file_id}/content"): Operation(
        id="headFile",
        summary="The headers of the file's bytes",
        headers=_RANGE,
        errors=_MISSING,
        media_type=None,
        redirects=True,
    ),
    ("post", "/uploads"): Operation(
        id="createUpload",
        summary="Begin an upload in parts",
        answers=(UploadResource,),
        body=CreateUpload,
        errors=_BAD | _LARGE | _FULL,
        links=_UPLOAD_LINKS,
    ),
    ("post", "/uploads/{upload_id}/parts"): Operation(
        id="addUploadPart",
        summary="Send one part",
        answers=(UploadPartResource, PresignedPartResource),
        body=ExpectPart,
        form=Form(file_part="data"),
        errors=_BAD | _MISSING | _LARGE,
    ),
    ("post", "/uploads/{upload_id}/complete"): Operation(
        id="completeUpload",
        summary="Join the parts into a file",
        answers=(UploadResource,),
        body=CompleteUpload,
        errors=_BAD | _MISSING | _LARGE,
    ),
    ("post", "/uploads/{upload_id}/cancel"): Operation(
        id="cancelUpload", summary="Cancel an upload", answers=(UploadResource,), errors=_BAD | _MISSING
    ),
    ("post", "/batches"): Operation(
        id="createBatch",
        summary="Check a file and start a batch of it",
        answers=(BatchResource,),
        body=CreateBatch,
        headers=_IDEMPOTENCY,
        errors={
            400: "`batch_invalid_jsonl`, `batch_multiple_models` or `batch_model_not_supported`, with every wrong line "
            "in `details`; or something in the call is wrong.",
            **_MISSING,
            409: "`idempotency_key_reused`, or `idempotency_in_progress`.",
            **_LARGE,
            **_FULL,
            503: "`batch_routing_unavailable`: no route of the model is active.",
        },
        refusals=(FileErrorEnvelope, ErrorEnvelope),
        links=_BATCH_LINKS,
    ),
    ("post", "/batches/{batch_id}/retry"): Operation(
        id="retryBatch",
        summary="Start a batch of the lines that failed in one that has ended",
        answers=(BatchResource,),
        body=RetryBatch,
        headers=_IDEMPOTENCY,
        errors={
            400: "`nothing_to_retry`: the batch has no failed lines; or one of the errors of `createBatch`.",
            **_MISSING,
            409: "`batch_not_ended`, `input_file_gone`, `error_file_gone` or `idempotency_key_reused`.",
            **_LARGE,
            **_FULL,
            503: "`batch_routing_unavailable`: no route of the model is active.",
        },
        refusals=(FileErrorEnvelope, ErrorEnvelope),
        links=_BATCH_LINKS,
    ),
    ("get", "/batches"): Operation(
        id="listBatches",
        summary="List batches, newest first",
        answers=(Page[BatchResource],),
        query=ListBatches,
        errors=_BAD,
    ),
    ("get", "/batches/{batch_id}"): Operation(
        id="retrieveBatch", summary="Read a batch", answers=(BatchResource,), errors=_MISSING, links=_BATCH_LINKS
    ),
    ("post", "/batches/{batch_id}/cancel"): Operation(
        id="cancelBatch",
        summary="Cancel a batch; one that has ended is returned as it is",
        answers=(BatchResource,),
        errors=_MISSING,
    ),
    ("get", "/batches/{batch_id}/visits"): Operation(
        id="listVisits",
        summary="What workers did for the batch, newest first, for a week",
        answers=(Page[VisitResource],),
        query=ListVisits,
        errors=_BAD | _MISSING,
    ),
    ("get", "/batches/{batch_id}/webhook_deliveries"): Operation(
        id="listWebhookDeliveries",
        summary="What happened to the batch's webhook",
        answers=(Page[DeliveryResource],),
        errors=_MISSING,
    ),
    ("post", "/batches/{batch_id}/webhook_deliveries/{delivery_id}/redeliver"): Operation(
        id="redeliverWebhook",
        summary="Send the webhook again: the same id and body, all tries anew",
        answers=(DeliveryResource,),
        errors=_MISSING | {409: "`delivery_pending`: it is still being tried."},
    ),
    ("get", "/models"): Operation(id="listModels", summary="Models that can be used in a batch", answers=(ModelList,)),
    ("get", "/models/{model}"): Operation(
        id="retrieveModel", summary="Read a model", answers=(ModelResource,), errors=_MISSING
    ),
    ("get", "/webhook"): Operation(
        id="retrieveWebhook", summary="The account's default webhook", answers=(WebhookResource,), errors=_MISSING
    ),
    ("put", "/webhook"): Operation(
        id="putWebhook",
        summary="Set the account's default webhook",
        answers=(WebhookSecretResource,),
        body=PutWebhook,
        errors=_BAD | _LARGE,
    ),
    ("delete", "/webhook"): Operation(
        id="deleteWebhook", summary="Remove the default webhook", answers=(WebhookDeletedResource,)
    ),
    ("post", "/webhook/rotate"): Operation(
        id="rotateWebhook",
        summary="A new signing secret; the old one stays valid beside it for 24 hours",
        answers=(WebhookSecretResource,),
    ),
    ("get", "/openapi.json"): Operation(id="openapi", summary="This document"),
    ("get", "/docs"): Operation(id="docs", summary="This document as a page", media_type="text/html"),
    ("get", "/console"): Operation(
        id="console", summary="The console, unless the stack leaves it out", media_type="text/html", errors=_MISSING
    ),
    ("get", "/console/assets/{name}"): Operation(
        id="consoleAsset", summary="A file of the console", media_type="text/javascript", errors=_MISSING
    ),
}
