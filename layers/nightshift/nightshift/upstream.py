"""Calls to the upstream: one session for a slice, bytes in and bytes out."""

import time
from types import TracebackType

import aiohttp

from nightshift import aws
from nightshift.answers import (
    MAX_ANSWER_BYTES,
    Answer,
    error_body,
    is_json_object,
    request_id,
    retry_after,
    without_lone_surrogates,
)
from nightshift.routing import Route

CONNECT_SECONDS = 10


class Upstream:
    """An OpenAI-compatible provider, as a route describes it. Use as an async context manager.

    Example:
        async with Upstream(route, api_key, concurrency=256) as upstream:
            answer = await upstream.send(b'{"model":…}', "batch_req_…")
    """

    def __init__(self, route: Route, api_key: str | None, concurrency: int) -> None:
        self._url = f"{route.base_url.rstrip('/')}/chat/completions"
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = aiohttp.ClientTimeout(total=route.timeout_seconds, sock_connect=CONNECT_SECONDS)
        self._concurrency = concurrency

    async def __aenter__(self) -> "Upstream":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, ttl_dns_cache=60),
            headers=self._headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
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
            async with self._session.post(
                self._url, data=body, headers={"Idempotency-Key": idempotency_key}, allow_redirects=False
            ) as response:
                content = await _read_bounded(response)
                status, headers = response.status, response.headers
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError):
            return Answer(failure="connect")
        except TimeoutError:
            return Answer(failure="timeout")
        except aiohttp.ClientError:
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


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None where it is longer than ``MAX_ANSWER_BYTES``."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)


class NoApiKeyError(Exception):
    """The secret of the route is gone, or we may not read it. The message names neither secret nor key."""


def api_key(route: Route) -> str | None:
    """The route's key from Secrets Manager; None for a route without one.

    Raises:
        NoApiKeyError: the secret is gone, or we may not read it.
    """
    if route.api_key_secret is None:
        return None
    secrets = aws.client("secretsmanager")
    try:
        return secrets.get_secret_value(SecretId=route.api_key_secret)["SecretString"]
    except Exception as error:
        if aws.error_code(error) in ("ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException"):
            raise NoApiKeyError("the API key of the route cannot be read") from error
        raise
