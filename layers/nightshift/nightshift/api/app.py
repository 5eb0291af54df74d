"""The resolver of an HTTP function: authentication, request ids, and every error in one envelope."""

import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.utilities.typing import LambdaContext

from nightshift.accounts import store as accounts
from nightshift.api.resources import error_envelope
from nightshift.core.errors import AuthenticationError, MethodNotAllowedError, NightshiftError, NotFoundError
from nightshift.core.ids import new_id
from nightshift.core.log import logger

_BASE_PATH = "/v1"
# Every other path needs an API key.
_PUBLIC_PATH = re.compile(r"/openapi\.json|/docs|/console(/assets/[^/]+)?")


def create_app(other_methods: Mapping[str, str] | None = None) -> APIGatewayRestResolver:
    """A resolver that authenticates every call, except to public paths, and returns errors in the envelope.

    ``other_methods`` maps a pattern of paths to their one method that another function serves, so that 405 lists that
    method too.
    """
    app = APIGatewayRestResolver()
    app.use(middlewares=[_authenticate])

    @app.exception_handler(NightshiftError)  # type: ignore[untyped-decorator]
    def on_known_error(error: NightshiftError) -> Response[str]:
        return _error_response(error)

    @app.exception_handler(Exception)  # type: ignore[untyped-decorator]
    def on_unexpected_error(error: Exception) -> Response[str]:
        logger.exception("unexpected error")
        return _error_response(
            NightshiftError(
                "The server had an error while processing the request. Try again; if the error persists, give the "
                "x-request-id of this response to the operator."
            )
        )

    @app.not_found
    def on_unknown_route(_: Exception) -> Response[str]:
        method, path = app.current_event.http_method, app.current_event.path
        elsewhere = {other for pattern, other in (other_methods or {}).items() if re.fullmatch(pattern, path)}
        allowed = (_methods_of(app, path) | elsewhere) - {method}
        if allowed:
            return _error_response(MethodNotAllowedError(method, path, sorted(allowed)))
        message = f"Not found: there is no {method} {path}. GET /v1/openapi.json lists what there is."
        return _error_response(NotFoundError(message, code="unknown_url"))

    return app


def before_snapshot(prepare: Callable[[], None]) -> Callable[[], None]:
    """Call ``prepare`` before SnapStart takes its snapshot, so that the snapshot holds what it imports and creates."""
    try:
        from snapshot_restore_py import (  # type: ignore[import-not-found]
            register_after_restore,
            register_before_snapshot,
        )
    except ImportError:
        return prepare  # the package exists in Lambda's runtime only
    register_before_snapshot(prepare)
    # Otherwise all copies of a snapshot draw the same random numbers. Ids and secrets do not need it, because they
    # come from the operating system.
    register_after_restore(random.seed)
    return prepare


def serve(app: APIGatewayRestResolver, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one call. The response and each of its log lines carry the same ``x-request-id``."""
    request_id = new_id("req")
    logger.append_keys(request_id=request_id)
    started = time.perf_counter()
    try:
        answer = app.resolve(event | {"path": _path(event)}, context)
        logger.info(
            "call answered",
            method=event.get("httpMethod"),
            route=event.get("resource"),  # the path would hold the caller's text
            status=answer["statusCode"],
            milliseconds=round(1000 * (time.perf_counter() - started)),
        )
    finally:
        logger.remove_keys(["request_id", "account_id"])
    answer.setdefault("multiValueHeaders", {})["x-request-id"] = [request_id]
    return answer


def _path(event: Mapping[str, Any]) -> str:
    """The path below ``/v1``.

    On API Gateway's own domain ``path`` is without the stage, and only ``requestContext.path`` has it. With a domain of
    the stack's own, both have the base path of its mapping.
    """
    path: str = event["path"]
    if event["requestContext"]["path"] == path and f"{path}/".startswith(f"{_BASE_PATH}/"):
        return path.removeprefix(_BASE_PATH) or "/"
    return path


def is_public(path: str) -> bool:
    """Whether a path needs no API key."""
    return _PUBLIC_PATH.fullmatch(path) is not None


def account_of(app: APIGatewayRestResolver) -> str:
    """The id of the account that the current call is authenticated for."""
    account_id: str = app.context["account_id"]
    return account_id


def json_response(
    resource: msgspec.Struct, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response[str]:
    """A response with ``resource`` as its JSON body."""
    body = msgspec.json.encode(resource).decode()
    return Response(status, content_type="application/json", body=body, headers=dict(headers or {}))


def _error_response(error: NightshiftError) -> Response[str]:
    return json_response(error_envelope(error), status=error.status, headers=error.headers())


def _methods_of(app: APIGatewayRestResolver, path: str) -> set[str]:
    # Powertools keeps routes in these two lists. It has no public way to list the methods of a path.
    return {route.method for route in app._static_routes + app._dynamic_routes if route.rule.match(path)}


def _authenticate(app: APIGatewayRestResolver, next_middleware: NextMiddleware) -> Response[Any]:
    if not is_public(app.current_event.path):
        account_id = _account_id(app.current_event.headers.get("authorization") or "")
        app.append_context(account_id=account_id)  # type: ignore[no-untyped-call]
        logger.append_keys(account_id=account_id)
    return next_middleware(app)


def _account_id(authorization: str) -> str:
    """The id of the account that the Authorization header's API key belongs to.

    Raises:
        AuthenticationError: there is no key, or it is malformed, unknown or revoked.
    """
    scheme, _, api_key = authorization.partition(" ")
    if scheme.lower() == "bearer":
        account_id = accounts.authenticate(api_key.strip())
        if account_id is not None:
            return account_id
    problem = "Incorrect API key provided" if authorization else "No API key provided"
    raise AuthenticationError(f"{problem}. Send a valid one in the header 'Authorization: Bearer sk-...'.")
