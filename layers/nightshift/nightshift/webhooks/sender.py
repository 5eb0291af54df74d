"""One HTTP request to a receiver, at an address that is checked when the connection is made.

It is the standard library's client, because importing aiohttp would be half of the function's cold start.
"""

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import cache
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from nightshift.core import settings
from nightshift.core.errors import BadRequestError
from nightshift.core.headers import retry_after
from nightshift.webhooks import addresses
from nightshift.webhooks.outcome import Outcome

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0
MAX_RESPONSE_BYTES = 64 * 1024
# What a path and a query may hold as it is (RFC 3986); anything else is sent percent-encoded.
_URL_CHARACTERS = "!$%&'()*+,/:;=?@~[]"


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
    """Send ``body`` to ``url`` once, within ``WHOLE_SECONDS``. Redirects are not followed."""
    allow_local = settings.allow_local_webhooks()
    try:
        addresses.check_url(url, allow_local=allow_local)
    except BadRequestError:
        return Outcome(error="invalid_callback_url")
    parts = urlsplit(url)
    loopback = allow_local and addresses.is_local(url)
    connection = _Connection(parts, addresses.is_loopback if loopback else addresses.is_public)
    target = quote(parts.path or "/", _URL_CHARACTERS)
    if parts.query:
        target += "?" + quote(parts.query, _URL_CHARACTERS)
    try:
        with closing(connection):
            connection.request("POST", target, body, {"Host": _host(parts), **headers})
            response = connection.getresponse()
            # The status alone decides the outcome, so a body that breaks off is ignored. Its start is read, because
            # many receivers report a reset connection as an error of theirs.
            with suppress(HTTPException, OSError, ValueError):
                response.read1(MAX_RESPONSE_BYTES)
    except TimeoutError:
        return Outcome(error="timeout")
    except (HTTPException, OSError, ValueError):
        return Outcome(error="refused_address" if connection.refused else "connection_failed")
    answered = {name.lower(): value for name, value in response.headers.items()}
    return Outcome(status=response.status, retry_after=retry_after(answered, time.time()))


class _Connection(HTTPConnection):
    """A connection to allowed addresses only. A host name is not checked, because it can resolve to any address.

    It ends ``WHOLE_SECONDS`` after it was made.
    """

    def __init__(self, url: SplitResult, is_allowed: Callable[[str], bool]) -> None:
        self._tls = url.scheme == "https"
        super().__init__(url.hostname or "", url.port or (443 if self._tls else 80))
        self._is_allowed = is_allowed
        self._ends_at = time.monotonic() + WHOLE_SECONDS
        self.refused = False

    def connect(self) -> None:
        """
        Raises:
            OSError: no allowed address of the host accepts the connection, or the certificate is not the host's.
        """
        opened: Any = self._open()
        opened.settimeout(_left(self._ends_at))
        if self._tls:
            opened = _tls().wrap_socket(opened, server_hostname=self.host.rstrip("."))
        opened.ends_at = self._ends_at
        self.sock = opened

    def _open(self) -> socket.socket:
        failed = OSError("no address")
        for family, kind, protocol, _, address in self._look_up():
            if not self._is_allowed(str(address[0])):
                self.refused = True
                failed = OSError("refused address")
                continue
            opened = _Socket(family, kind, protocol)
            try:
                opened.settimeout(min(CONNECT_SECONDS, _left(self._ends_at)))
                opened.connect(address)
            except OSError as error:
                opened.close()
                failed = error
            else:
                return opened
        raise failed

    def _look_up(self) -> list[Any]:
        """The host's addresses, from a thread that is abandoned when it is late, because getaddrinfo has no limit."""
        threads = ThreadPoolExecutor(1)
        try:
            looked_up = threads.submit(socket.getaddrinfo, self.host, self.port, type=socket.SOCK_STREAM)
            return looked_up.result(_left(self._ends_at))
        finally:
            threads.shutdown(wait=False)


def _left(ends_at: float) -> float:
    """The seconds until then.

    Raises:
        TimeoutError: there are none.
    """
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed:
    """A socket that reads until ``ends_at``. A timeout of ``socket`` alone counts from each read, so a response that
    drips would have no end."""

    ends_at: float

    def recv_into(self, *where: Any) -> int:
        self.settimeout(_left(self.ends_at))  # type: ignore[attr-defined]  # of the classes below
        read: int = super().recv_into(*where)  # type: ignore[misc]
        return read


class _Socket(_Timed, socket.socket):
    pass


class _TlsSocket(_Timed, ssl.SSLSocket):
    pass


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _TlsSocket
    context.set_alpn_protocols(["http/1.1"])
    return context


def _host(url: SplitResult) -> str:
    """The header: without the port where it is the scheme's own."""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else str(url.hostname)
    return host if url.port in (None, 443 if url.scheme == "https" else 80) else f"{host}:{url.port}"
