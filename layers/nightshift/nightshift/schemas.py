"""What callers may send, as pydantic models."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ExpiresAfter(_Body):
    """When a file expires: seconds after ``anchor``."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class CreateBatch(_Body):
    """The body of ``POST /v1/batches``."""

    input_file_id: str
    endpoint: Literal["/v1/chat/completions"] = "/v1/chat/completions"
    completion_window: Literal["24h"] = "24h"
    callback_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None


class PutWebhook(_Body):
    """The body of ``PUT /v1/webhook``."""

    url: Annotated[str, StringConstraints(max_length=2048)]


class ListBatches(BaseModel):
    """The query of ``GET /v1/batches``."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: Annotated[str, StringConstraints(max_length=64)] | None = None
