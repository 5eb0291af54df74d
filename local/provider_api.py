"""The simulated provider's batch API: `/v1/files` and `/v1/batches`, and how calls to it fail."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from local.answers import ANSWERS
from local.provider_batches import ENDED, WINDOW, Batch, Batches
from local.provider_files import Files
from local.replies import RefusalError, break_off, dumps, error, page, refuse
from local.simulation import Simulation, drawn_status

MOST_PER_PAGE = 100
PER_PAGE = 20
MOST_METADATA = 16

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Provider:
    """The batch API, and what was given to it."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.files = Files(simulation)
        self.batches = Batches(simulation, self.files)

    def routes(self) -> list[web.RouteDef]:
        return [
            *self.files.routes(),
            web.post("/v1/batches", self._create),
            web.get("/v1/batches", self._list),
            web.get("/v1/batches/{id}", self._retrieve),
            web.post("/v1/batches/{id}/cancel", self._cancel),
        ]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count the calls of the batch API, and let some of them fail."""
        route = request.match_info.route.resource
        if route is None or route.canonical in ANSWERS:
            return await handler(request)
        response = await self._answer(request, handler)
        status = "reset" if response.prepared else response.status
        self._simulation.counters.batch_api[f"{request.method} {route.canonical} {status}"] += 1
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        settings = self._simulation.settings
        status = drawn_status(settings.batch_api_error_rate)
        is_reset = random.random() < settings.batch_api_reset_rate
        if status is None and not is_reset:
            return await _refused(request, handler)
        answer = b'{"id":"'
        if settings.batch_api_error_after or request.method == "GET":
            response = await _refused(request, handler)
            answer = response.body if isinstance(response.body, bytes) else answer
        else:
            await request.read()
        if status is not None:
            return error(status, settings)
        return await break_off(request, answer[: len(answer) // 2], len(answer))

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await _object(request)
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(wanted.get(name), str):
                refuse(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
        if wanted["endpoint"] not in ANSWERS:
            known = ", ".join(map(repr, ANSWERS))
            refuse(f"Invalid value: '{wanted['endpoint']}'. The simulator has {known}.", "endpoint", "invalid_value")
        if wanted["completion_window"] != WINDOW:
            refuse(f"Invalid value. Value must be '{WINDOW}'.", "completion_window", "invalid_value")
        metadata = wanted.get("metadata")
        if metadata is not None and not _is_metadata(metadata):
            refuse("Invalid 'metadata': expected up to 16 pairs of strings.", "metadata", "invalid_type")
        file_id = wanted["input_file_id"]
        file = self.files.find(file_id)
        if file is None:
            refuse(f"Cannot find file {file_id}, or the project does not have access to it.", "file_id")
        if file.purpose != "batch":
            refuse(f"Invalid file purpose: expected 'batch', got '{file.purpose}'.", "input_file_id")
        return self._shown(self.batches.create(file, wanted["endpoint"], metadata))

    async def _list(self, request: web.Request) -> web.Response:
        late = self._simulation.settings.files_late_seconds
        return page(request, (batch.as_json(late) for batch in self.batches.newest_first()), MOST_PER_PAGE, PER_PAGE)

    async def _retrieve(self, request: web.Request) -> web.Response:
        return self._shown(self._wanted(request))

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._wanted(request)
        if self._simulation.settings.cancel_conflict and batch.status in ("validating", "in_progress"):
            await self.batches.hurry(batch)
        if batch.status in ("finalizing", *ENDED):
            refuse(f"Cannot cancel a batch with status '{batch.status}'.", status=409)
        if batch.status != "cancelling":
            self.batches.cancel(batch)
        return self._shown(batch)

    def _wanted(self, request: web.Request) -> Batch:
        batch_id = request.match_info["id"]
        return self.batches.find(batch_id) or refuse(f"No batch found with id '{batch_id}'.", status=404)

    def _shown(self, batch: Batch) -> web.Response:
        return web.json_response(batch.as_json(self._simulation.settings.files_late_seconds), dumps=dumps)


async def _refused(request: web.Request, handler: Handler) -> web.Response:
    """What the handler answers, which may be a refusal."""
    try:
        response = await handler(request)
    except RefusalError as refusal:
        return web.json_response(refusal.body, status=refusal.status)
    assert isinstance(response, web.Response)  # noqa: S101 - our handlers stream nothing
    return response


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        wanted = await request.json()
    except ValueError:
        wanted = None
    return wanted if isinstance(wanted, dict) else refuse("We could not parse the JSON body of your request.")


def _is_metadata(metadata: object) -> bool:
    if not isinstance(metadata, dict) or len(metadata) > MOST_METADATA:
        return False
    return all(isinstance(text, str) for pair in metadata.items() for text in pair)
