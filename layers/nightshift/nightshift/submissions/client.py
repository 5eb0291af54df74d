"""The HTTP client of a provider's batch API: files and batches, as OpenAI documents them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urljoin

import aiohttp

from nightshift.core.headers import retry_after
from nightshift.core.log import logger
from nightshift.routes.route import Route
from nightshift.submissions.provider import (
    NAME_FIELD,
    ProviderBatch,
    ProviderError,
    failure,
    read_batch,
    read_batches,
    read_file_id,
    read_files,
    read_upload,
)
from nightshift.upstream.client import NoApiKeyError, api_key

CALL_SECONDS = 30.0
# A connection that carries a file must move within this time.
IDLE_SECONDS = 60.0
# An answer to a call; only files are longer, and these are streamed.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# A line of an output file: an answer of 8 MiB, and what is around it.
MAX_LINE_BYTES = 9 * 1024 * 1024
PAGE = 100
MAX_PAGES = 10
# Of the Uploads API: small enough for gateways in front of providers such as Nightshift itself.
UPLOAD_PART_BYTES = 4 * 1024 * 1024
# The status of a gateway that does not take a file in one call.
_TOO_LARGE = 413


class BatchClient:
    """The batch API of a route's provider. Use as an async context manager. Every call may raise ``ProviderError``."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._headers: dict[str, str] = {}

    async def __aenter__(self) -> "BatchClient":
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    # --- files -----------------------------------------------------------------------------------------------

    async def upload(self, name: str, path: Path) -> str:
        """Upload a file for batches; returns its id. What one call cannot carry is sent in parts."""
        try:
            with path.open("rb") as content:
                form = aiohttp.FormData({"purpose": "batch"})
                form.add_field("file", content, filename=f"{name}.jsonl", content_type="application/jsonl")
                return read_file_id(await self._call("POST", "/files", data=form, seconds=None))
        except ProviderError as error:
            if error.status != _TOO_LARGE:
                raise
        return await self._upload_parts(name, path)

    async def _upload_parts(self, name: str, path: Path) -> str:
        size = path.stat().st_size  # noqa: ASYNC240 (it does not wait for a disk)
        new = {"purpose": "batch", "filename": f"{name}.jsonl", "bytes": size, "mime_type": "application/jsonl"}
        upload = f"/uploads/{quote(read_file_id(await self._call('POST', '/uploads', json=new)))}"
        part_ids: list[str] = []
        with path.open("rb") as content:
            while part := content.read(UPLOAD_PART_BYTES):
                form = aiohttp.FormData()
                form.add_field("data", part, filename="part", content_type="application/octet-stream")
                part_ids.append(read_file_id(await self._call("POST", f"{upload}/parts", data=form, seconds=None)))
        return read_upload(await self._call("POST", f"{upload}/complete", json={"part_ids": part_ids}))

    async def find_files(self, name: str) -> list[str]:
        """The ids of the newest files of this name."""
        found: list[str] = []
        after: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            query = {"purpose": "batch", "order": "desc", "limit": str(PAGE), **after}
            page, more = read_files(await self._call("GET", "/files", query=query))
            found += [file_id for file_id, filename in page if filename == f"{name}.jsonl"]
            if not more:
                break
            after = {"after": page[-1][0]}
        return found

    async def delete_file(self, file_id: str) -> None:
        """Delete a file, if it is still there."""
        try:
            await self._call("DELETE", f"/files/{quote(file_id)}")
        except ProviderError as error:
            if error.status not in (404, 410):
                raise

    async def read_lines(self, file_id: str) -> AsyncIterator[bytes]:
        """The lines of a file without their newlines; a line that is too long is left out."""
        url = self._route.url_of(f"/files/{quote(file_id)}/content")
        async with _Download(self._session, url, await self._every_calls_headers()) as response:
            async for line in _lines(response.content):
                yield line

    # --- batches ---------------------------------------------------------------------------------------------

    async def create(self, name: str, file_id: str, endpoint: str) -> ProviderBatch:
        """Create a batch of an uploaded file. Its metadata and its idempotency key hold ``name``."""
        new = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": {NAME_FIELD: name},
        }
        return read_batch(await self._call("POST", "/batches", json=new, headers={"Idempotency-Key": name}))

    async def find(self, name: str, file_id: str) -> ProviderBatch | None:
        """The newest batch of this file or this name; None where none is listed."""
        after: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page, more = read_batches(await self._call("GET", "/batches", query={"limit": str(PAGE), **after}))
            for batch in page:
                if batch.input_file_id == file_id or batch.name == name:
                    return batch
            if not more or not page:
                return None
            after = {"after": page[-1].id}
        return None

    async def get(self, batch_id: str) -> ProviderBatch:
        return read_batch(await self._call("GET", f"/batches/{quote(batch_id)}"))

    async def cancel(self, batch_id: str) -> None:
        """Ask for a batch's cancellation. A batch that has ended meanwhile is no error."""
        try:
            await self._call("POST", f"/batches/{quote(batch_id)}/cancel")
        except ProviderError as error:
            if error.status not in (400, 409):
                raise
            logger.info("cancel refused by the provider", provider_status=error.status, words=error.message)

    # --- calls -----------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = CALL_SECONDS,
        **body: Any,
    ) -> bytes:
        """The body of a successful answer. ``body`` is aiohttp's ``json`` or ``data``."""
        url = self._route.url_of(path, **(query or {}))
        every = await self._every_calls_headers()
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, url, headers={**every, **(headers or {})}, allow_redirects=False, **body
                ) as response,
            ):
                content = await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ProviderError(0, f"The provider could not be reached: {type(error).__name__}.") from error
        if not 200 <= response.status < 300:
            raise _failure(response, content)
        return content

    async def _every_calls_headers(self) -> Mapping[str, str]:
        """The route's headers and its key, which is read before the first call."""
        credentials = self._route.credentials
        if credentials is None:
            return self._route.headers
        if not self._headers:
            try:
                key = await asyncio.to_thread(api_key, self._route)
            except NoApiKeyError as error:
                # The call was not made, as surely as if the provider had refused it.
                raise ProviderError(401, str(error)) from error
            self._headers = {**self._route.headers, credentials.header: credentials.value(key or "")}
        return self._headers


class _Download:
    """The answer to a GET of a file's content, after its redirects. These go without the provider's credentials: a
    redirect leads to a storage service, which they do not concern."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
        self._session, self._url, self._headers = session, url, dict(headers)

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            for _ in range(5):
                self._response = await self._session.get(self._url, headers=self._headers, allow_redirects=False)
                if self._response.status not in (301, 302, 303, 307, 308):
                    break
                self._url = urljoin(self._url, self._response.headers.get("Location", ""))
                self._headers = {}
                self._response.release()
            if self._response.status != 200:
                content = await _read(self._response)
                self._response.release()
                raise _failure(self._response, content)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ProviderError(0, f"The file could not be read: {type(error).__name__}.") from error
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()
        if isinstance(error, (aiohttp.ClientError, OSError, TimeoutError)):
            raise ProviderError(0, f"The file could not be read: {type(error).__name__}.") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole answer.

    Raises:
        ValueError: it is longer than ``MAX_ANSWER_BYTES``.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise ValueError("the answer is too long")
        pieces.append(piece)
    return b"".join(pieces)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream; of a line over ``MAX_LINE_BYTES`` nothing is kept."""
    rest = b""
    too_long = False
    async for piece in content.iter_any():
        *whole, last = (rest + piece).split(b"\n")
        for line in whole:
            if line and not too_long:
                yield line
            too_long = False
        too_long = too_long or len(last) > MAX_LINE_BYTES
        rest = b"" if too_long else last
    if rest:
        yield rest


def _failure(response: aiohttp.ClientResponse, content: bytes) -> ProviderError:
    return failure(response.status, content, retry_after(response.headers, time.time()))
