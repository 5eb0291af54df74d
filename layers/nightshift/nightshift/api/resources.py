"""What the API shows besides files, batches and webhooks: models, and the envelope of errors."""

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from nightshift.core.errors import Fault, InvalidFileError, NightshiftError
from nightshift.routes.endpoint import EndpointPath
from nightshift.routes.route import Route, endpoints_of


class ModelPrices(Struct, frozen=True, kw_only=True):
    """What the operator's routes say that the model costs, in dollars for a million tokens."""

    mode: Literal["realtime", "batch"]
    input_per_million: float
    output_per_million: float


class ModelResource(Struct, frozen=True, kw_only=True):
    """A model that batches can use, each of them for one of its ``endpoints``. ``prices`` is null where they are not
    known, or depend on the route that a batch gets."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "nightshift"
    endpoints: list[EndpointPath]
    prices: ModelPrices | None


class ModelList(Struct, frozen=True, kw_only=True):
    """All models. OpenAI's list of models has no pages."""

    object: Literal["list"] = "list"
    data: list[ModelResource]


class ErrorBody(Struct, frozen=True, kw_only=True):
    """An error. ``code`` is for programs, ``message`` for people, ``param`` names the parameter at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class FileErrorBody(ErrorBody, frozen=True, kw_only=True):
    """An error of an input file, with each of its faults."""

    details: list[Fault]


class ErrorEnvelope(Struct, frozen=True, kw_only=True):
    """The body of every response that is an error."""

    error: ErrorBody


class FileErrorEnvelope(Struct, frozen=True, kw_only=True):
    """The body of the response to a batch whose input file has faults."""

    error: FileErrorBody


def model_object(name: str, routes: Iterable[Route]) -> ModelResource:
    """The model ``name`` as the API shows it; ``routes`` are those that batches can get, of any model."""
    of_model = [route for route in routes if route.model == name]
    return ModelResource(id=name, endpoints=endpoints_of(of_model), prices=_prices(of_model))


def _prices(routes: Sequence[Route]) -> ModelPrices | None:
    """The prices of the routes of the best priority, if they agree."""
    best = min(route.priority for route in routes)
    offers = {
        (route.mode, route.sku.input_per_million, route.sku.output_per_million)
        for route in routes
        if route.priority == best
    }
    [(mode, per_input, per_output), *others] = offers
    if others or per_input is None or per_output is None:
        return None
    return ModelPrices(mode=mode, input_per_million=per_input, output_per_million=per_output)


def error_envelope(error: NightshiftError) -> ErrorEnvelope | FileErrorEnvelope:
    """An error as the body of a response.

    A message may quote a caller's text that no UTF-8 can hold (half of a surrogate pair); it is replaced by ``?``.
    """
    message, param = _encodable(error.message), error.param and _encodable(error.param)
    if isinstance(error, InvalidFileError):
        body = FileErrorBody(message=message, type=error.type, param=param, code=error.code, details=error.details)
        return FileErrorEnvelope(error=body)
    return ErrorEnvelope(error=ErrorBody(message=message, type=error.type, param=param, code=error.code))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
