"""Which upstream a batch is locked to."""

import random
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from nightshift.core.errors import Fault, InvalidFileError, UnavailableError
from nightshift.routes.endpoint import DEFAULT, ENDPOINTS, EndpointPath
from nightshift.routes.health import Control

JsonFields: TypeAlias = dict[str, Any]

# A key of DynamoDB has at most 2,048 bytes.
MAX_ID_BYTES = 2048


class Sku(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The provider's offer that a route uses; prices are in dollars for a million tokens."""

    id: str
    active: bool = True
    input_per_million: float | None = None
    output_per_million: float | None = None


# RFC 9110: the characters of a header's name. What the client itself must set cannot be configured.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED_HEADERS = frozenset(
    {"accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "idempotency-key"}
    | {"transfer-encoding"}
)


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the provider's key is sent: in the header ``header``, after ``scheme`` and a space where there is a scheme.

    ``secret`` names a secret of Secrets Manager; the key itself is never stored here.
    """

    secret: str
    header: str = "Authorization"
    scheme: str = "Bearer"

    def value(self, key: str) -> str:
        """The header's value for this key."""
        return f"{self.scheme} {key}" if self.scheme else key


class BatchApi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The provider's own batch API: what one of its batches may hold at most, and its name for the endpoint, if that is
    not the batch's own.

    ``max_queued_tokens`` bounds the prompt tokens of one batch, which are estimated from its bytes.
    """

    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_queued_tokens: int | None = None
    endpoint: str | None = None


class Realtime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for single requests only: more fields of their body, and their price where it is not the SKU's."""

    extra_body: JsonFields = {}
    input_per_million: float | None = None
    output_per_million: float | None = None


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to answer a model.

    ``mode`` says how: with single requests (``realtime``) or through the provider's own batch API (``batch``), at the
    SKU's price. Lines that a provider's batch has not answered ``rescue_before_seconds`` before the deadline are sent
    in real time. ``endpoints`` are those that it answers. ``path``, ``query`` and ``headers`` shape the URL and the
    headers of each request; without ``path`` it is the endpoint's own. The fields of ``extra_body`` replace those of
    the caller's body. ``api_key_secret`` is short for an ``auth`` with a bearer token.
    """

    model: str
    provider: str
    base_url: str
    upstream_model: str
    batch: bool = True
    sku: Sku
    endpoints: tuple[EndpointPath, ...] = (DEFAULT,)
    mode: Literal["realtime", "batch"] = "realtime"
    batch_api: BatchApi = BatchApi()
    realtime: Realtime = Realtime()
    rescue_before_seconds: int | None = None
    priority: int = 10
    weight: int = 1
    max_concurrency: int = 256
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout_seconds: int = 600
    api_key_secret: str | None = None
    auth: Auth | None = None
    path: str | None = None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    extra_body: JsonFields = {}

    @property
    def id(self) -> str:
        """What identifies the route: a batch stays with it, whatever else changes."""
        return f"{self.model}\n{self.provider}\n{self.sku.id}"

    @property
    def credentials(self) -> Auth | None:
        """How requests authenticate; None for an upstream without keys."""
        return self.auth or (Auth(self.api_key_secret) if self.api_key_secret else None)

    @property
    def is_usable(self) -> bool:
        """Whether new batches may use it."""
        return self.batch and self.sku.active

    def request_url(self, endpoint: EndpointPath) -> str:
        """The URL that the requests of ``endpoint`` are posted to."""
        return self.url_of(self.path or ENDPOINTS[endpoint].upstream_path)

    def batch_endpoint(self, endpoint: EndpointPath) -> str:
        """What the provider's batch API calls ``endpoint``."""
        return self.batch_api.endpoint or endpoint

    def url_of(self, path: str, **query: str) -> str:
        """The URL of another path of the provider, with ``query`` besides the route's own."""
        encoded = urllib.parse.urlencode(self.query | query)
        return f"{self.base_url.rstrip('/')}{path}{'?' if encoded else ''}{encoded}"

    @property
    def realtime_extra_body(self) -> JsonFields:
        """The fields that are set in every single request."""
        return self.extra_body | self.realtime.extra_body

    def __post_init__(self) -> None:
        for name, value in (
            ("model", self.model),
            ("provider", self.provider),
            ("upstream_model", self.upstream_model),
            ("sku.id", self.sku.id),
        ):
            if not value:
                raise ValueError(f"{name} must not be empty")
        if len(self.id.encode()) > MAX_ID_BYTES:
            raise ValueError("model, provider and sku.id are too long")
        if not re.match(r"https?://[^/]", self.base_url):
            raise ValueError("base_url must be an http:// or https:// URL")
        if not 1 <= self.max_concurrency <= 10_000:
            raise ValueError("max_concurrency must be between 1 and 10,000")
        if not 1 <= self.timeout_seconds <= 900:
            raise ValueError("timeout_seconds must be between 1 and 900")
        for name, number in (
            ("weight", self.weight),
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("batch.max_requests", self.batch_api.max_requests),
            ("batch.max_bytes", self.batch_api.max_bytes),
            ("batch.max_queued_tokens", self.batch_api.max_queued_tokens),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1")
        if not self.endpoints or len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError("endpoints must not be empty, and have no endpoint twice")
        if self.rescue_before_seconds is not None and not (
            self.mode == "batch" and 0 < self.rescue_before_seconds < 24 * 3600
        ):
            raise ValueError("rescue_before must be shorter than 24h, and needs mode: batch")
        self._check_request()

    def _check_request(self) -> None:
        """Check what shapes a request.

        Raises:
            ValueError: a request could not be sent like this, or not safely.
        """
        if self.auth and self.api_key_secret:
            raise ValueError("auth and api_key_secret exclude each other")
        for path_name, path in (("path", self.path), ("batch.endpoint", self.batch_api.endpoint)):
            if path is None:
                continue
            if not re.fullmatch(r"/[^?#\s\\]*", path):
                raise ValueError(f"{path_name} must start with a slash and have no query")
            if len(self.endpoints) > 1:
                raise ValueError(
                    f"{path_name} needs a route with one endpoint; write one, with its own sku.id, for each"
                )
        if self.auth and not (_HEADER_NAME.fullmatch(self.auth.header) and _is_printable(self.auth.scheme)):
            raise ValueError("auth.header must be the name of a header, and auth.scheme printable ASCII")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
                raise ValueError(f"headers: {name[:64]!a} cannot be set")
            if not _is_printable(value):
                raise ValueError(f"headers: the value of {name[:64]!a} must be printable ASCII")
        for name in ("model", *_CALLERS_FIELDS):
            if name in self.realtime_extra_body:
                raise ValueError(f"extra_body must not set {name}")


# The prompts of all endpoints, and what a batch refuses.
_CALLERS_FIELDS = sorted({name for row in ENDPOINTS.values() for name in (row.prompt, *row.refused)})


def _is_printable(text: str) -> bool:
    return (text.isascii() and text.isprintable()) or not text


def endpoints_of(routes: Iterable[Route]) -> list[EndpointPath]:
    """The endpoints that ``routes`` answer, in the order of the table."""
    offered = {endpoint for route in routes for endpoint in route.endpoints}
    return [endpoint for endpoint in ENDPOINTS if endpoint in offered]


def choose(
    routes: Sequence[Route],
    model: str,
    endpoint: EndpointPath,
    rng: random.Random | None = None,
    *,
    line: int | None = None,
    controls: Mapping[str, Control] | None = None,
) -> Route:
    """The route for a batch of ``model``: for ``endpoint``, batch-capable, SKU active, lowest priority; ties by weight.

    ``controls`` has what the operator said, by route id. A draining route takes no batch. A paused one takes it if no
    other route can: the batch waits. ``line`` is the number of the line that names the model, for the error.

    Raises:
        InvalidFileError: ``batch_model_not_supported``, when no route of the model is for batches and the endpoint.
        UnavailableError: ``batch_routing_unavailable``, when none of those has an active SKU, or all of them drain.
    """
    of_model = [route for route in routes if route.model == model and route.batch]
    capable = [route for route in of_model if endpoint in route.endpoints]
    if not capable:
        shown = model if len(model) <= 80 else model[:77] + "..."
        message = f"The model {shown!a} is not supported in a batch"
        if of_model:
            message += f" of {endpoint}, but in batches of {' and '.join(endpoints_of(of_model))}"
        message += ". GET /v1/models lists the supported models."
        fault = Fault("model_not_found", message, "body.model", line)
        where = "" if line is None else f"Line {line}, body.model: "
        raise InvalidFileError(f"{where}{message}", code="batch_model_not_supported", details=[fault])
    said = controls or {}
    active = [route for route in capable if route.sku.active and said.get(route.id) != "draining"]
    active = [route for route in active if said.get(route.id) != "paused"] or active
    if not active:
        raise UnavailableError(
            f"No route for the model {model!a} is active at the moment. Try again later.",
            code="batch_routing_unavailable",
            param="input_file_id",
        )
    best = min(route.priority for route in active)
    candidates = [route for route in active if route.priority == best]
    return (rng or random).choices(candidates, weights=[route.weight for route in candidates])[0]
