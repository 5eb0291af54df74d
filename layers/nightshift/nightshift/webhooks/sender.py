"""One HTTP request to a receiver, at an address that is checked when the connection is made."""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nightshift.core import settings
from nightshift.core.errors import BadRequestError
from nightshift.core.headers import retry_after
from nightshift.webhooks import addresses
from nightshift.webhooks.outcome import Outcome

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 5
WHOLE_SECONDS = 15
MAX_RESPONSE_BYTES = 64 * 1024


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
    """Send ``body`` to ``url`` once, within ``WHOLE_SECONDS``. Redirects are not followed."""
    allow_local = settings.allow_local_webhooks()
    try:
        addresses.check_url(url, allow_local=allow_local)
    except BadRequestError:
        return Outcome(error="invalid_callback_url")
    loopback = allow_local and addresses.is_local(url)
    return asyncio.run(_post(url, body, headers, addresses.is_loopback if loopback else addresses.is_public))


async def _post(url: str, body: bytes, headers: Mapping[str, str], is_allowed: Callable[[str], bool]) -> Outcome:
    import aiohttp

    asyncio.get_running_loop().set_default_executor(_AbandonedLookups())
    timeout = aiohttp.ClientTimeout(total=WHOLE_SECONDS, sock_connect=CONNECT_SECONDS)
    sockets = _Sockets(is_allowed)
    try:
        connector = aiohttp.TCPConnector(socket_factory=sockets.open)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            await _discard_body(response)
            return Outcome(status=response.status, retry_after=retry_after(response.headers, time.time()))
    except TimeoutError:
        return Outcome(error="timeout")
    except (aiohttp.ClientError, OSError, ValueError):
        return Outcome(error="refused_address" if sockets.refused else "connection_failed")


async def _discard_body(response: "aiohttp.ClientResponse") -> None:
    """Read the start of the body, because many receivers report a reset connection as an error of theirs.

    The status alone decides the outcome, so a body that breaks off is ignored.
    """
    import aiohttp

    with suppress(TimeoutError, aiohttp.ClientError):
        await response.content.read(MAX_RESPONSE_BYTES)


class _Sockets:
    """Opens sockets to allowed addresses. A host name is not checked, because it can resolve to any address."""

    def __init__(self, is_allowed: Callable[[str], bool]) -> None:
        self._is_allowed = is_allowed
        self.refused = False

    def open(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._is_allowed(address[0]):
            self.refused = True
            raise OSError("refused address")
        return socket.socket(family, kind, protocol)


class _AbandonedLookups(ThreadPoolExecutor):
    """Threads for getaddrinfo, which cannot be cancelled: ``asyncio.run`` would wait for them at its end."""

    def shutdown(self, *_: Any, **__: Any) -> None:
        super().shutdown(wait=False, cancel_futures=True)
