"""The files of the simulated provider: `/v1/files`, in memory."""

import secrets
import time
from dataclasses import dataclass

from aiohttp import web

from local.replies import dumps, page, refuse
from local.simulation import Simulation

LIFETIME_SECONDS = 30 * 24 * 3600
MOST_PER_PAGE = 10_000


@dataclass(frozen=True)
class File:
    id: str
    content: bytes
    filename: str
    purpose: str
    created_at: int
    # Seconds since 1970. Until then the file cannot be found.
    visible_at: float = 0

    def as_json(self) -> dict[str, str | int | None]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created_at,
            "expires_at": self.created_at + LIFETIME_SECONDS,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Files:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._files: dict[str, File] = {}

    def __len__(self) -> int:
        return len(self._files)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files", self._list),
            web.get("/v1/files/{id}", self._retrieve),
            web.get("/v1/files/{id}/content", self._content),
            web.delete("/v1/files/{id}", self._delete),
        ]

    def add(self, content: bytes, filename: str, purpose: str, visible_at: float = 0) -> File:
        file = File(f"file-{secrets.token_hex(12)}", content, filename, purpose, int(time.time()), visible_at)
        self._files[file.id] = file
        return file

    def find(self, file_id: str) -> File | None:
        file = self._files.get(file_id)
        return file if file is not None and file.visible_at <= time.time() else None

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, web.FileField):
            refuse("Missing required parameter: 'file'.", "file", "missing_required_parameter")
        if purpose != "batch":
            refuse(f"Invalid value for 'purpose': {purpose!r}. The simulator has 'batch'.", "purpose", "invalid_value")
        with file.file:
            content = file.file.read()
        most = self._simulation.settings.max_batch_bytes
        if len(content) > most:
            refuse(f"The file has {len(content)} bytes; a batch's input has {most} at most.", "file")
        self._simulation.counters.files_uploaded += 1
        return web.json_response(self.add(content, file.filename, purpose).as_json(), dumps=dumps)

    async def _list(self, request: web.Request) -> web.Response:
        purpose = request.query.get("purpose")
        files = [file for file in self._files.values() if self.find(file.id) and purpose in (None, "", file.purpose)]
        if request.query.get("order") != "asc":
            files.reverse()
        return page(request, (file.as_json() for file in files), MOST_PER_PAGE, MOST_PER_PAGE)

    async def _retrieve(self, request: web.Request) -> web.Response:
        return web.json_response(self._wanted(request).as_json(), dumps=dumps)

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(body=self._wanted(request).content, content_type="application/octet-stream")

    async def _delete(self, request: web.Request) -> web.Response:
        file = self._wanted(request)
        del self._files[file.id]
        self._simulation.counters.files_deleted += 1
        return web.json_response({"id": file.id, "object": "file", "deleted": True})

    def _wanted(self, request: web.Request) -> File:
        file_id = request.match_info["id"]
        return self.find(file_id) or refuse(f"No such File object: {file_id}", "id", status=404)
