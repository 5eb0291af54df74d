"""A receiver of webhooks on this machine that prints what arrives."""

import http.server
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import typer
from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from nightshift_cli import show
from nightshift_cli.errors import CliError

MAX_BODY_BYTES = 1024 * 1024


def verifier(secret: str) -> Webhook:
    """
    Raises:
        CliError: the secret is none.
    """
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        raise CliError("The webhook secret is not whsec_ and base64.") from None


class Receiver(http.server.ThreadingHTTPServer):
    """Listens on loopback alone, and answers every POST with ``answer``."""

    daemon_threads = True
    verifier: Webhook

    def __init__(self, port: int, answer: int) -> None:
        self.answer = answer
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise CliError(f"Port {port} cannot be listened on ({error.strerror}). Choose another: --port.") from None

    def handle_error(self, *_: object) -> None:
        """Tell of a sender that went away, without a traceback."""
        typer.echo(f"A request broke off: {show.plain(sys.exception() or 'no reason')}")


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and len(length) < 10 and int(length) <= MAX_BODY_BYTES):
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        typer.echo(f"{time.strftime('%H:%M:%S')}  {told(self.server.verifier, dict(self.headers), body)}")
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """What arrives is told once, by ``do_POST``."""


def told(verifier: Webhook, headers: Mapping[str, str], body: bytes) -> str:
    """A webhook as one line: what it says, and whether it may be believed."""
    webhook_id = {name.lower(): value for name, value in headers.items()}.get("webhook-id", "-")
    try:
        said = _event(json.loads(body))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said = f"{len(body)} bytes that are no event of a batch"
    try:
        verifier.verify(body, dict(headers), json_parse=False)
        verdict = "verified"
    except (WebhookVerificationError, ValueError) as error:
        verdict = f"NOT verified ({error})"
    return show.plain(f"{said}  {webhook_id}  {verdict}")


def _event(event: Any) -> str:
    batch = event["data"]
    counts = show.counts(batch) or "no lines counted"
    return f"{event['type']}  {batch['id']}  {batch['status']} ({counts})"
