"""What callers may send, as pydantic models."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from nightshift.batches.status import Status
from nightshift.files.name import MAX_NAME, PATTERN
from nightshift.input.file_check import MAX_FILE_BYTES
from nightshift.routes.endpoint import DEFAULT, EndpointPath

MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]

# ``check_name`` checks it, whichever way a file comes.
FileName = Annotated[str, Field(json_schema_extra={"maxLength": MAX_NAME, "pattern": PATTERN})]
FileSize = Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]
AssetGroup = Annotated[str, StringConstraints(min_length=1, max_length=256)]


# A model's validator is built when the model is first used: a call needs one of them, and the building takes time.
class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)


class ExpiresAfter(_Body):
    """When a file expires: seconds after ``anchor``."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class CreateBatch(_Body):
    """The body of ``POST /v1/batches``."""

    input_file_id: str
    endpoint: EndpointPath = DEFAULT
    completion_window: Literal["24h"] = "24h"
    callback_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None
    idempotency_key: IdempotencyKey | None = None


class RetryBatch(_Body):
    """The body of ``POST /v1/batches/{batch_id}/retry``."""

    idempotency_key: IdempotencyKey | None = None


class PutWebhook(_Body):
    """The body of ``PUT /v1/webhook``."""

    url: Annotated[str, StringConstraints(max_length=2048)]


class ExpectFile(_Body):
    """The JSON body of ``POST /v1/files``: a file whose bytes the caller puts into S3 itself."""

    purpose: Literal["batch"]
    filename: FileName
    bytes: FileSize
    expires_after: ExpiresAfter | None = None
    ttl_seconds: Annotated[int, Field(ge=3600, le=2_592_000)] | None = None
    asset_group: AssetGroup | None = None


class FileForm(BaseModel):
    """The text fields of the multipart body of ``POST /v1/files``."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    purpose: Literal["batch"]
    expires_after: ExpiresAfter | None = None
    ttl_seconds: Annotated[int, Field(ge=3600, le=2_592_000)] | None = None
    asset_group: AssetGroup | None = None


class ExpectPart(_Body):
    """The JSON body of ``POST /v1/uploads/{id}/parts``: a part whose bytes the caller puts into S3 itself."""

    bytes: FileSize


class CreateUpload(_Body):
    """The body of ``POST /v1/uploads``."""

    purpose: Literal["batch"]
    filename: FileName
    bytes: FileSize
    mime_type: Annotated[str, StringConstraints(max_length=256)]
    expires_after: ExpiresAfter | None = None


class CompleteUpload(_Body):
    """The body of ``POST /v1/uploads/{upload_id}/complete``."""

    part_ids: Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(min_length=1, max_length=10_000)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


class ListBatches(BaseModel):
    """The query of ``GET /v1/batches``."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    after: Annotated[str, StringConstraints(pattern=r"^(batch_[0-9a-z]{1,32})?$")] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    status: Status | None = None


class ListVisits(BaseModel):
    """The query of ``GET /v1/batches/{id}/visits``."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    after: Annotated[str, StringConstraints(pattern=r"^(visit_[0-9]{13}_[0-9]{4})?$")] | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


class ListFiles(BaseModel):
    """The query of ``GET /v1/files``."""

    model_config = ConfigDict(extra="ignore", defer_build=True)

    after: Annotated[str, StringConstraints(pattern=r"^(file_[0-9a-z]{1,32})?$")] | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    purpose: Annotated[str, StringConstraints(max_length=64)] | None = None
