"""How the upstream simulator replies: JSON, pages, refusals, and answers that break off."""

import json
from collections.abc import Iterable
from functools import partial
from typing import Any, NoReturn

from aiohttp import web

from local.simulation import Settings, simulated_error

# Raw UTF-8, as vLLM and OpenAI answer.
dumps = partial(json.dumps, ensure_ascii=False)


class RefusalError(Exception):
    """A call that is refused, as OpenAI refuses it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.status, self.body = status, {"error": error}


def refuse(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> NoReturn:
    raise RefusalError(status, message, param, code)


def error(status: int, settings: Settings) -> web.Response:
    """A simulated error. 429 and 503 carry Retry-After if the settings have one."""
    headers = {}
    if settings.retry_after_s is not None and status in (429, 503):
        headers["Retry-After"] = f"{settings.retry_after_s:g}"
    return web.json_response(simulated_error(status), status=status, headers=headers)


async def break_off(request: web.Request, start: bytes = b'{"id":', length: int = 1000) -> web.StreamResponse:
    """Send the ``start`` of an answer of ``length`` bytes, and break the connection."""
    response = web.StreamResponse(headers={"Content-Length": str(length)})
    await response.prepare(request)
    await response.write(start)
    if request.transport is not None:
        request.transport.abort()
    return response


def page(request: web.Request, newest_first: Iterable[dict[str, Any]], most: int, default: int) -> web.Response:
    """One page of a list, as the query's ``limit`` and ``after`` want it."""
    try:
        limit = int(request.query.get("limit") or default)
    except ValueError:
        refuse("Invalid 'limit': expected an integer.", "limit", "invalid_type")
    if not 1 <= limit <= most:
        refuse(f"Invalid 'limit': expected an integer from 1 to {most}.", "limit", "invalid_value")
    items = list(newest_first)
    if after := request.query.get("after"):
        place = next((place for place, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            refuse(f"Invalid 'after': {after} does not exist.", "after", "invalid_value")
        items = items[place + 1 :]
    shown = items[:limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    answer = {"object": "list", "data": shown, **ends, "has_more": len(items) > limit}
    return web.json_response(answer, dumps=dumps)
