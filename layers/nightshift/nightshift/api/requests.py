"""The bodies and queries of calls as pydantic models, and pydantic's errors as the API's own."""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from nightshift.core.errors import BadRequestError, TooLargeError
from nightshift.core.limits import MAX_CALL_BYTES

if TYPE_CHECKING:
    # pydantic is imported by the calls that need it, because most calls only read one thing by its id.
    from aws_lambda_powertools.event_handler import APIGatewayRestResolver
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound="BaseModel")

# What a value must be, by the type of pydantic's error. Fields in braces come from the error's context.
_RULES = {
    "literal_error": "Supported values are: {expected}.",
    "string_type": "It must be a string.",
    "int_type": "It must be an integer.",
    "int_parsing": "It must be an integer.",
    "int_from_float": "It must be an integer.",
    "string_unicode": "It must be valid Unicode.",
    "list_type": "It must be an array.",
    "dict_type": "It must be an object.",
    "model_type": "It must be an object.",
    "greater_than_equal": "It must be at least {ge}.",
    "less_than_equal": "It must be at most {le}.",
    "string_too_short": "It must have {min_length} or more characters.",
    "string_too_long": "It must have at most {max_length} characters.",
    "string_pattern_mismatch": "It must match the pattern '{pattern}'.",
    "too_short": "It must have {min_length} or more entries.",
    "too_long": "It must have at most {max_length} entries.",
}
# Errors quote so many characters of a value and of a name, because a response has a limit as a request has.
_MAX_VALUE = 64
_MAX_NAME = 256


def parse_body(app: "APIGatewayRestResolver", model: type[Model]) -> Model:
    """The call's JSON body as ``model``; a call without a body has an empty object.

    Raises:
        BadRequestError: the body does not fit the model; ``message`` and ``param`` say where and why.
        TooLargeError: the body is over ``MAX_CALL_BYTES``.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate_json(body_bytes(app) or b"{}")
    except ValidationError as error:
        raise _bad_request(error) from None


def parse_query(app: "APIGatewayRestResolver", model: type[Model]) -> Model:
    """The call's query as ``model``. Of a parameter given twice, the last value counts.

    Raises:
        BadRequestError: the query does not fit the model.
    """
    given = app.current_event.resolved_query_string_parameters
    return validate(model, {name: values[-1] for name, values in given.items() if values})


def validate(model: type[Model], content: Mapping[str, object]) -> Model:
    """``content`` as ``model``.

    Raises:
        BadRequestError: ``content`` does not fit the model; ``message`` and ``param`` say where and why.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _bad_request(error) from None


def body_bytes(app: "APIGatewayRestResolver") -> bytes:
    """The call's body.

    Raises:
        BadRequestError: API Gateway's encoding of the body is broken.
        TooLargeError: the body is over ``MAX_CALL_BYTES``.
    """
    body = app.current_event.body or ""
    try:
        content = base64.b64decode(body) if app.current_event.is_base64_encoded else body.encode()
    except (binascii.Error, UnicodeEncodeError):
        raise BadRequestError("The request body cannot be decoded.", code="invalid_body") from None
    if len(content) > MAX_CALL_BYTES:
        raise TooLargeError(
            f"The request body is too large: it has {len(content)} bytes, and the limit for one call is "
            f"{MAX_CALL_BYTES}. Upload a larger file in parts (POST /v1/uploads; in the OpenAI SDKs "
            "uploads.upload_file_chunked(..., part_size=4 * 1024 * 1024), because the default part is too large), or "
            'straight to S3 (POST /v1/files with a JSON body {"purpose", "filename", "bytes"} returns an upload_url), '
            "or with `nightshift run`."
        )
    return content


def _bad_request(error: "ValidationError") -> BadRequestError:
    """The first of pydantic's errors as an error of the API."""
    first = error.errors(include_url=False)[0]
    param = ".".join(str(part)[:_MAX_NAME] for part in first["loc"] if part != "[key]") or None
    match first["type"]:
        case "json_invalid":
            return BadRequestError(f"The request body is not valid JSON: {first['ctx']['error']}.", code="invalid_json")
        case "missing":
            code, message = "missing_required_parameter", f"Missing required parameter: {param!r}."
        case "extra_forbidden":
            code, message = "unknown_parameter", f"Unknown parameter: {param!r}."
        case _:
            code = "invalid_value"
            message = f"{param or 'The request body'}: invalid value{_quoted(first['input'])}. {_rule(first)}"
    return BadRequestError(message, code=code, param=param)


def _rule(error: "ErrorDetails") -> str:
    """What the value must be."""
    rule = _RULES.get(error["type"])
    return rule.format(**error.get("ctx", {})) if rule else f"{error['msg']}."


def _quoted(value: Any) -> str:
    """The caller's value for an error message, after a space; empty for an array or an object."""
    match value:
        case str():
            return f" {value[:_MAX_VALUE]!r}" + ("..." if len(value) > _MAX_VALUE else "")
        case bool():
            return " true" if value else " false"
        case int() | float():
            return f" {str(value)[:_MAX_VALUE]}"
        case None:
            return " null"
    return ""
