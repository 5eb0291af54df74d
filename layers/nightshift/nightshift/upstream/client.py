"""The HTTP client of an upstream: it posts the bytes of a request and returns the bytes of the answer."""

import asyncio
import io
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet

import aiohttp

from nightshift.core import aws
from nightshift.core.headers import retry_after
from nightshift.core.log import logger
from nightshift.core.surrogates import without_lone_surrogates
from nightshift.routes.endpoint import DEFAULT, EndpointPath
from nightshift.routes.route import Route
from nightshift.upstream import sockets
from nightshift.upstream.allowance import reset_seconds
from nightshift.upstream.answer import (
    MAX_ANSWER_BYTES,
    Answer,
    error_body,
    is_json_object,
    request_id,
    status_of,
)
from nightshift.upstream.byte_budget import ByteBudget

CONNECT_SECONDS = 10
# Connections that are opened at the same time. A TLS handshake takes a millisecond of CPU time, of which a worker has a
# fifth: 1,000 at once would come near CONNECT_SECONDS.
OPENING = 125
# How often a worker looks again whether a file is free.
FULL_SECONDS = 0.05
# A reused connection that breaks sooner was closed while it was idle.
IDLE_CLOSE_SECONDS = 1.0
# An answer longer than this is reserved in the byte budget. Few answers are, and this much fits into memory for each
# request in flight.
SMALL_ANSWER_BYTES = 40 * 1024
# A longer request body is sent in blocks, because aiohttp and TLS would otherwise copy all of it at once.
LARGE_BODY_BYTES = 128 * 1024
# The size of one read, and what waits unread in a connection's TLS layer before it stops to read its socket: asyncio
# has 256 KiB for each if not told otherwise.
READ_BYTES = 16 * 1024
# aiohttp stops to read a connection with more than twice as much unread: with one read.
BUFFER_BYTES = READ_BYTES // 2 - 1

# asyncio keeps a buffer of this size for each TLS connection: 256 KiB if not told otherwise, though a TLS record has 16
# (RFC 8446, 5.1). The standard library does not document it, so a test looks at the buffer (ADR 19).
SSLProtocol.max_size = READ_BYTES


class Upstream:
    """One endpoint of an OpenAI-compatible provider, as a route describes it. Use as an async context manager.

    An answer longer than ``SMALL_ANSWER_BYTES`` is reserved in ``budget`` before the rest of it is read; until then its
    connection waits. An answer longer than ``max_answer_bytes`` is a failure. ``timeout_seconds`` replaces the route's.

    Example:
        async with Upstream(route, api_key, concurrency=256, budget=ByteBudget(2**25)) as upstream:
            answer = await upstream.send(b'{"model":…}', "batch_req_…")
    """

    def __init__(
        self,
        route: Route,
        api_key: str | None,
        concurrency: int,
        budget: ByteBudget,
        *,
        endpoint: EndpointPath = DEFAULT,
        timeout_seconds: float | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._url = route.request_url(endpoint)
        # Uncompressed, because a compressed answer is in memory in full before its size is known.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **route.headers}
        if api_key and route.credentials:
            self._headers[route.credentials.header] = route.credentials.value(api_key)
        self._seconds = timeout_seconds or route.timeout_seconds
        self._concurrency = concurrency
        self._budget = budget
        self._max_answer_bytes = max_answer_bytes

    async def __aenter__(self) -> "Upstream":
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self._concurrency, ttl_dns_cache=60),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=BUFFER_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """Post one request and read its whole answer. Failures of the network or the upstream do not raise.

        ``idempotency_key`` is sent as the header of that name.
        """
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                status, headers, content = await self._exchange(body, idempotency_key, deadline)
        except aiohttp.ClientConnectorDNSError:
            return Answer(failure="dns")
        except aiohttp.ClientSSLError:
            return Answer(failure="tls")
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError):
            return Answer(failure="connect")
        except TimeoutError:
            return Answer(failure="timeout")
        except Exception as error:
            # aiohttp raises exceptions other than its ClientError for some malformed answers.
            if not isinstance(error, (aiohttp.ClientError, OSError)):
                logger.warning("request failed unexpectedly", error=type(error).__name__)
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
        status = status_of(status, body_or_error)
        return Answer(
            status,
            body_or_error,
            request_id(headers),
            retry_after(headers, time.time()),
            reset_after=reset_seconds(headers),
        )

    async def _exchange(
        self, body: bytes, idempotency_key: str, deadline: asyncio.Timeout
    ) -> tuple[int, Mapping[str, str], bytes | None]:
        """Status, headers and body of the answer. The body is None if it is longer than ``max_answer_bytes``.

        A request that met an idle connection's end is sent once more, on a new connection.
        """
        headers = {"Idempotency-Key": idempotency_key}
        for is_repetition in (False, True):
            answered = whole = False
            _reused.set(False)
            _transport.set(None)
            _must_be_new.set(is_repetition)
            started_at = time.monotonic()
            data = body if len(body) <= LARGE_BODY_BYTES else io.BytesIO(body)
            try:
                async with self._session.post(self._url, data=data, headers=headers, allow_redirects=False) as response:
                    answered = True
                    content = await self._read(response, deadline)
                    whole = content is not None
                    return response.status, response.headers, content
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The upstream had closed the reused connection while it was idle, so it has not read the request. A
                # connection that breaks later may be broken by the request: that is a try.
                idle = _reused.get() and time.monotonic() - started_at < IDLE_CLOSE_SECONDS
                if answered or not idle or is_repetition:
                    raise
            finally:
                if not whole and (transport := _transport.get()):
                    # A closed TLS connection would wait for the other side's farewell, as long as 30 seconds.
                    transport.abort()
        raise AssertionError("the second attempt returns or raises")

    async def _read(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> bytes | None:
        """The body; None if it is longer than ``max_answer_bytes``."""
        pieces: list[bytes] = []
        size = reserved = 0
        try:
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > self._max_answer_bytes:
                    response.close()
                    return None
                pieces.append(piece)
                if size > SMALL_ANSWER_BYTES and not reserved:
                    reserved = await self._reserve(response, deadline)
            return b"".join(pieces)
        finally:
            self._budget.release(reserved)

    async def _reserve(self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> int:
        """Reserve the whole answer in the byte budget. Returns the bytes that are reserved.

        The request's timeout stands still meanwhile, because the wait is not the upstream's fault.
        """
        announced = None if "Content-Encoding" in response.headers else response.content_length
        size = min(announced or self._max_answer_bytes, self._max_answer_bytes)
        loop = asyncio.get_running_loop()
        left = (deadline.when() or 0.0) - loop.time()
        deadline.reschedule(None)
        await self._budget.reserve(size)
        deadline.reschedule(loop.time() + left)
        return size


# Whether the connection of the task's last attempt had been used before, and whether the next one may have been.
_reused: ContextVar[bool] = ContextVar("reused")
_must_be_new: ContextVar[bool] = ContextVar("must_be_new", default=False)
# The connection of the task's last attempt.
_transport: ContextVar[asyncio.Transport | None] = ContextVar("transport")


@runtime_checkable
class _TlsTransport(Protocol):
    """A transport of asyncio that speaks TLS: others have no buffer of what is unread."""

    def set_read_buffer_limits(self, high: int) -> None: ...


class _Connector(aiohttp.TCPConnector):
    """Sets ``_reused`` and ``_transport``.

    No connection is reused where ``_must_be_new`` is set, or after bytes that follow an answer.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: WeakSet[Any] = WeakSet()
        self._opening = asyncio.Semaphore(OPENING)

    async def connect(self, *request: Any, **options: Any) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(*request, **options)
            protocol = connection.protocol
            reused = protocol in self._used
            if not (reused and protocol and (protocol.should_close or _must_be_new.get())):
                break
            connection.close()
        if not reused and isinstance(connection.transport, _TlsTransport):
            connection.transport.set_read_buffer_limits(READ_BYTES)
        _reused.set(reused)
        _transport.set(connection.transport)
        self._used.add(protocol)
        return connection

    async def _create_connection(self, *request: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._opening.acquire()
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("the connections before it could not be opened") from error
        try:
            await _free_file()
            return await super()._create_connection(*request, **options)
        finally:
            self._opening.release()


async def _free_file() -> None:
    """Wait while connections that are being closed have the last files."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            while sockets.is_full():  # noqa: ASYNC110 (nothing tells when a file is closed)
                await asyncio.sleep(FULL_SECONDS)
    except TimeoutError as error:
        raise aiohttp.ConnectionTimeoutError("no file was closed for it") from error


class NoApiKeyError(Exception):
    """The route's secret is missing, may not be read, or holds no API key. The message names neither secret nor key."""


def api_key(route: Route) -> str | None:
    """The route's API key from Secrets Manager, without white space around it; None for a route without a secret.

    Raises:
        NoApiKeyError: the secret is missing, may not be read, or is not printable ASCII.
    """
    credentials = route.credentials
    if credentials is None:
        return None
    secrets = aws.client("secretsmanager")
    try:
        secret = secrets.get_secret_value(SecretId=credentials.secret)
    except Exception as error:
        if aws.error_code(error) in ("ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException"):
            raise NoApiKeyError("The API key of the route cannot be read.") from error
        raise
    key = secret.get("SecretString", "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise NoApiKeyError("The API key of the route is empty or not printable ASCII.")
    return key
