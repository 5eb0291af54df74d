"""Which upstream a batch is locked to."""

import random
import re
from collections.abc import Sequence

import msgspec

from nightshift.core.errors import Fault, InvalidFileError, UnavailableError


class Sku(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a route is bought as; prices in dollars for a million tokens."""

    id: str
    active: bool = True
    input_per_million: float | None = None
    output_per_million: float | None = None


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to answer a model. ``api_key_secret`` names a secret; the secret itself is never stored here."""

    model: str
    provider: str
    base_url: str
    upstream_model: str
    batch: bool = True
    sku: Sku
    priority: int = 10
    weight: int = 1
    max_concurrency: int = 256
    timeout_seconds: int = 600
    api_key_secret: str | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("model", self.model),
            ("provider", self.provider),
            ("upstream_model", self.upstream_model),
            ("sku.id", self.sku.id),
        ):
            if not value:
                raise ValueError(f"{name} must not be empty")
        if not re.match(r"https?://[^/]", self.base_url):
            raise ValueError("base_url must be an http:// or https:// URL")
        if not 1 <= self.max_concurrency <= 10_000:
            raise ValueError("max_concurrency must be between 1 and 10,000")
        if not 1 <= self.timeout_seconds <= 600:
            raise ValueError("timeout_seconds must be between 1 and 600")
        if self.weight < 1:
            raise ValueError("weight must be at least 1")


def choose(routes: Sequence[Route], model: str, rng: random.Random | None = None, *, line: int | None = None) -> Route:
    """The route for a batch of ``model``: batch-capable, SKU active, lowest priority; ties by weight.

    ``line`` is the number of the line that names the model, for the error.

    Raises:
        InvalidFileError: ``batch_model_not_supported``, when no route of the model is batch-capable.
        UnavailableError: ``batch_routing_unavailable``, when none of those has an active SKU.
    """
    capable = [route for route in routes if route.model == model and route.batch]
    if not capable:
        shown = model if len(model) <= 80 else model[:77] + "..."
        message = f"The model {shown!a} is not supported in a batch. GET /v1/models lists the supported models."
        fault = Fault("model_not_found", message, "body.model", line)
        where = "" if line is None else f"Line {line}, body.model: "
        raise InvalidFileError(f"{where}{message}", code="batch_model_not_supported", details=[fault])
    active = [route for route in capable if route.sku.active]
    if not active:
        raise UnavailableError(
            f"No route for the model {model!a} is active at the moment. Try again later.",
            code="batch_routing_unavailable",
            param="input_file_id",
        )
    best = min(route.priority for route in active)
    candidates = [route for route in active if route.priority == best]
    return (rng or random).choices(candidates, weights=[route.weight for route in candidates])[0]
