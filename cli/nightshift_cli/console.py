"""Opens the console in the browser, signed in.

The key must be in no command line, where every user of the machine could read it, so the browser is sent to an address
on loopback that answers once, with a redirect to the console. The key is behind the redirect's ``#``, which browsers
send to no server.
"""

import secrets
import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote

from nightshift_cli.connection import Connection

_SECONDS = 30.0


def address(connection: Connection) -> str:
    """Where the console is."""
    return f"{connection.base_url.rstrip('/')}/console"


def open_signed_in(connection: Connection, seconds: float = _SECONDS) -> bool:
    """Whether a browser has asked for the console within ``seconds``."""
    handover = _Handover(f"{address(connection)}#key={quote(connection.api_key, safe='')}")
    try:
        if not webbrowser.open(handover.url):
            return False
        give_up = time.monotonic() + seconds
        while not handover.done and time.monotonic() < give_up:
            handover.handle_request()
        return handover.done
    finally:
        handover.server_close()


class _Handover(HTTPServer):
    """Redirects the one request that knows its path to ``target``."""

    timeout = 1

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.path = f"/{secrets.token_urlsafe()}"
        self.done = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.path}"


class _Handler(BaseHTTPRequestHandler):
    server: _Handover
    timeout = 1  # Browsers open connections that they do not use.

    def do_GET(self) -> None:
        knows = secrets.compare_digest(self.path.encode(), self.server.path.encode())
        self.send_response(302 if knows else 404)
        if knows:
            self.send_header("Location", self.server.target)
            self.send_header("Cache-Control", "no-store")
            self.server.done = True
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Print nothing."""
