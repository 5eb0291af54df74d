"""What every HTTP function shares: authentication, request ids, parsing, and errors told in one envelope."""

import base64
import binascii
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.utilities.typing import LambdaContext

from nightshift.accounts import store as accounts
from nightshift.core.errors import (
    AuthenticationError,
    BadRequestError,
    MethodNotAllowedError,
    NightshiftError,
    NotFoundError,
    TooLargeError,
)
from nightshift.core.ids import new_id
from nightshift.core.limits import MAX_CALL_BYTES
from nightshift.core.log import logger

if TYPE_CHECKING:
    # Imported where a call has something to be parsed: most ask for one thing by its id.
    from pydantic import BaseModel, ValidationError

# Everything else needs a key.
PUBLIC_PATHS = frozenset({"/openapi.json", "/docs"})

Model = TypeVar("Model", bound="BaseModel")


def create_app(elsewhere: dict[str, str] | None = None) -> APIGatewayRestResolver:
    """A resolver that authenticates every call to a path that is not public, and answers errors in the envelope.

    ``elsewhere`` names the one method of a path that another function answers, so that it is told too.
    """
    app = APIGatewayRestResolver()
    app.use(middlewares=[_authenticate])

    @app.exception_handler(NightshiftError)  # type: ignore[untyped-decorator]
    def told(error: NightshiftError) -> Response[str]:
        return json_response(error.envelope(), status=error.status, headers=error.headers())

    @app.exception_handler(Exception)  # type: ignore[untyped-decorator]
    def untold(error: Exception) -> Response[str]:
        logger.exception("unexpected error")
        return json_response(NightshiftError("The server had an error. Try again.").envelope(), status=500)

    @app.not_found
    def unknown(_: Exception) -> Response[str]:
        method, path = app.current_event.http_method, app.current_event.path
        # Powertools keeps the routes in these two lists; it has no public way to ask which methods a path has.
        routes = app._static_routes + app._dynamic_routes
        known = {route.method for route in routes if route.rule.match(path)} | {(elsewhere or {}).get(path, method)}
        allowed = sorted(known - {method})
        if allowed:
            wrong = MethodNotAllowedError(f"{path} does not take {method}; it takes {', '.join(allowed)}.")
            return json_response(wrong.envelope(), status=wrong.status, headers={"Allow": ", ".join(allowed)})
        missing = NotFoundError(f"There is nothing at {method} {path}.", code="unknown_url")
        return json_response(missing.envelope(), status=missing.status)

    return app


def before_snapshot(prepare: Callable[[], None]) -> Callable[[], None]:
    """Under SnapStart, have ``prepare`` called before the snapshot is taken: what it imports and makes is in it."""
    try:
        from snapshot_restore_py import (  # type: ignore[import-not-found]
            register_after_restore,
            register_before_snapshot,
        )
    except ImportError:
        return prepare  # only Lambda's runtime has it
    register_before_snapshot(prepare)
    # Copies of one snapshot would all draw the same numbers. Ids and secrets come from the system, which does not.
    register_after_restore(random.seed)
    return prepare


def serve(app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one call. The answer and every log line of it carry the same ``x-request-id``."""
    request_id = new_id("req")
    logger.append_keys(request_id=request_id)
    started = time.perf_counter()
    try:
        answer = app.resolve(event, context)
        logger.info(
            "call answered",
            method=event.get("httpMethod"),
            route=event.get("resource"),  # not the path: what is in it is the caller's
            status=answer["statusCode"],
            milliseconds=round(1000 * (time.perf_counter() - started)),
        )
    finally:
        logger.remove_keys(["request_id", "account_id"])
    answer.setdefault("multiValueHeaders", {})["x-request-id"] = [request_id]
    return answer


def _authenticate(app: APIGatewayRestResolver, next_middleware: NextMiddleware) -> Response[Any]:
    if app.current_event.path not in PUBLIC_PATHS:
        header = app.current_event.headers.get("authorization") or ""
        scheme, _, api_key = header.partition(" ")
        account_id = None
        if scheme.lower() == "bearer" and api_key.isascii() and 0 < len(api_key.strip()) <= 256:
            account_id = accounts.authenticate(api_key.strip())
        if account_id is None:
            given = "The API key is not valid" if header else "There is no API key in the request"
            raise AuthenticationError(f"{given}. Send it as 'Authorization: Bearer sk-...'.")
        app.append_context(account_id=account_id)  # type: ignore[no-untyped-call]
        logger.append_keys(account_id=account_id)
    return next_middleware(app)


def account_of(app: APIGatewayRestResolver) -> str:
    """The account that the current call is authenticated for."""
    account_id: str = app.context["account_id"]
    return account_id


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[str]:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(status, content_type="application/json", body=body, headers=dict(headers or {}))


def _body_bytes(app: APIGatewayRestResolver) -> bytes:
    body = app.current_event.body or ""
    try:
        content = base64.b64decode(body) if app.current_event.is_base64_encoded else body.encode()
    except (binascii.Error, UnicodeEncodeError):
        raise BadRequestError("The body could not be read.", code="invalid_body") from None
    if len(content) > MAX_CALL_BYTES:
        raise TooLargeError(
            f"The body has {len(content)} bytes; the limit for one call is {MAX_CALL_BYTES}. Send a larger file in "
            "parts (POST /v1/uploads, or uploads.upload_file_chunked in the OpenAI SDKs), or straight to S3 (POST "
            '/v1/files with a JSON body {"purpose", "filename", "bytes"} answers with an upload_url).'
        )
    return content


def parse_body(app: APIGatewayRestResolver, model: type[Model]) -> Model:
    """The call's JSON body as ``model``.

    Raises:
        BadRequestError: it is not; the message says what to mend, ``param`` where.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate_json(_body_bytes(app) or b"{}")
    except ValidationError as error:
        raise _as_bad_request(error) from None


def parse_query(app: APIGatewayRestResolver, model: type[Model]) -> Model:
    """The call's query as ``model``; of a parameter given twice the last value counts."""
    given = app.current_event.resolved_query_string_parameters
    return validate(model, {name: values[-1] for name, values in given.items() if values})


def validate(model: type[Model], content: Any) -> Model:
    """``content`` as ``model``.

    Raises:
        BadRequestError: it is not; the message says what to mend, ``param`` where.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _as_bad_request(error) from None


def _as_bad_request(error: "ValidationError") -> BadRequestError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadRequestError("The body is not valid JSON.", code="invalid_json")
    param = ".".join(str(part) for part in first["loc"] if part != "[key]") or None
    code = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}.get(
        first["type"], "invalid_value"
    )
    return BadRequestError(f"{param or 'The body'}: {first['msg']}.", code=code, param=param)


@dataclass(slots=True)
class Form:
    """A parsed multipart form: its text fields, and its one file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    content: bytes | None = None


def parse_form(app: APIGatewayRestResolver, file_part: str) -> Form:
    """The call's multipart body, whatever the order of its parts; the file is the part named ``file_part``.

    Raises:
        BadRequestError: the body is no well-formed multipart form.
        TooLargeError: it is over ``MAX_CALL_BYTES``.
    """
    import python_multipart

    content = _body_bytes(app)
    form = Form()

    def on_field(part: Any) -> None:
        form.fields[part.field_name.decode("utf-8", "replace")] = (part.value or b"").decode("utf-8", "replace")

    def on_file(part: Any) -> None:
        if part.field_name == file_part.encode():
            part.file_object.seek(0)
            form.content = part.file_object.read()
            form.filename = (part.file_name or b"").decode("utf-8", "replace")
        part.close()

    content_type = (app.current_event.headers.get("content-type") or "").encode("latin-1", "replace")
    try:
        python_multipart.parse_form({"Content-Type": content_type}, BytesIO(content), on_field, on_file)
    except (python_multipart.exceptions.FormParserError, ValueError):
        raise BadRequestError("The body is not a well-formed multipart form.", code="invalid_body") from None
    return form
