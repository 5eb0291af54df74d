"""Calls to the upstream: one session for a slice, bytes in and bytes out."""

import asyncio
import time
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any
from weakref import WeakSet

import aiohttp

from nightshift.core import aws
from nightshift.core.headers import retry_after
from nightshift.core.log import logger
from nightshift.routes.route import Route
from nightshift.upstream.answer import (
    MAX_ANSWER_BYTES,
    Answer,
    error_body,
    is_json_object,
    request_id,
    without_lone_surrogates,
)
from nightshift.upstream.byte_budget import ByteBudget

CONNECT_SECONDS = 10
# What an answer may have before it needs room: few are longer, and as much of each request in flight fits in memory.
SMALL_ANSWER_BYTES = 128 * 1024
# What is read of a connection at once. aiohttp holds up to twice as much of one that waits.
READ_BYTES = 32 * 1024


class Upstream:
    """An OpenAI-compatible provider, as a route describes it. Use as an async context manager.

    Longer answers are only read when ``room`` has place for them; until then their connections wait.

    Example:
        async with Upstream(route, api_key, concurrency=256, budget=ByteBudget(2**25)) as upstream:
            answer = await upstream.send(b'{"model":…}', "batch_req_…")
    """

    def __init__(self, route: Route, api_key: str | None, concurrency: int, budget: ByteBudget) -> None:
        self._url = f"{route.base_url.rstrip('/')}/chat/completions"
        # Not compressed: what an answer unpacks to would be in memory before it could be asked to wait.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._seconds = route.timeout_seconds
        self._concurrency = concurrency
        self._budget = budget

    async def __aenter__(self) -> "Upstream":
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self._concurrency, ttl_dns_cache=60),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """Post one request and read its whole answer; never raises for what the network or the upstream does.

        ``idempotency_key`` goes along as a header of that name, the same for every try of one line.
        """
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                status, headers, content = await self._exchange(body, idempotency_key, deadline)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError):
            return Answer(failure="connect")
        except TimeoutError:
            return Answer(failure="timeout")
        except Exception as error:
            # Most are aiohttp.ClientError; some broken answers make aiohttp raise what is not meant for us.
            if not isinstance(error, (aiohttp.ClientError, OSError)):
                logger.warning("unexpected failure of a request", error=type(error).__name__)
            return Answer(failure="broken")
        if content is None:
            return Answer(failure="too_long")
        if is_json_object(content):
            body_or_error = content
        elif is_json_object(mended := without_lone_surrogates(content)):
            body_or_error = mended
        elif 200 <= status < 300:
            return Answer(failure="not_json")
        else:
            body_or_error = error_body(status, content)
        return Answer(status, body_or_error, request_id(headers), retry_after(headers, time.time()))

    async def _exchange(
        self, body: bytes, idempotency_key: str, deadline: asyncio.Timeout
    ) -> tuple[int, Mapping[str, str], bytes | None]:
        """Status, headers and body; no body where it is longer than ``MAX_ANSWER_BYTES``."""
        headers = {"Idempotency-Key": idempotency_key}
        while True:
            answered = False
            _reused.set(False)
            try:
                async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                    answered = True
                    return response.status, response.headers, await self._read(response, deadline)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The upstream had closed an idle connection: that is no answer to this request. Each such connection is
                # met once, so this ends.
                if answered or not _reused.get():
                    raise

    async def _read(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> bytes | None:
        """The body; None where it is longer than ``MAX_ANSWER_BYTES``."""
        pieces: list[bytes] = []
        size = reserved = 0
        try:
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    response.close()
                    return None
                pieces.append(piece)
                if size > SMALL_ANSWER_BYTES and not reserved:
                    reserved = await self._reserve(response, deadline)
            return b"".join(pieces)
        finally:
            self._budget.release(reserved)

    async def _reserve(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> int:
        """Wait for room for the whole answer, however long: that it waits is not the upstream's fault."""
        said = None if "Content-Encoding" in response.headers else response.content_length
        size = min(said or MAX_ANSWER_BYTES, MAX_ANSWER_BYTES)
        loop = asyncio.get_running_loop()
        left = (deadline.when() or 0.0) - loop.time()
        deadline.reschedule(None)
        await self._budget.reserve(size)
        deadline.reschedule(loop.time() + left)
        return size


# Whether the task's last connection had been used before.
_reused: ContextVar[bool] = ContextVar("reused")


class _Connector(aiohttp.TCPConnector):
    """Tells whether a connection is new, and gives none again on which something came that nobody had asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: WeakSet[Any] = WeakSet()

    async def connect(self, *request: Any, **options: Any) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(*request, **options)
            protocol = connection.protocol
            reused = protocol in self._used
            if not (reused and protocol and protocol.should_close):
                break
            connection.close()
        _reused.set(reused)
        self._used.add(protocol)
        return connection


class NoApiKeyError(Exception):
    """The secret of the route is gone, may not be read, or holds no key. The message names neither secret nor key."""


def api_key(route: Route) -> str | None:
    """The route's key from Secrets Manager, without the space that pasting leaves around it; None for a route without
    one.

    Raises:
        NoApiKeyError: the secret is gone, may not be read, or is nothing that a header can carry.
    """
    if route.api_key_secret is None:
        return None
    secrets = aws.client("secretsmanager")
    try:
        secret = secrets.get_secret_value(SecretId=route.api_key_secret)
    except Exception as error:
        if aws.error_code(error) in ("ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException"):
            raise NoApiKeyError("the API key of the route cannot be read") from error
        raise
    key = secret.get("SecretString", "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise NoApiKeyError("the API key of the route is not text that a header can carry")
    return key
