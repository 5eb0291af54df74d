"""A webhook receiver on this machine that prints what arrives."""

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

MAX_WEBHOOK_BYTES = 1024 * 1024


def verifier(secret: str) -> Webhook:
    """A verifier of signatures by ``secret``.

    Raises:
        CliError: the secret is not valid.
    """
    try:
        return Webhook(secret)
    except (ValueError, EmptyWebhookSecretError):
        raise CliError("The webhook secret is not valid. It must be whsec_ followed by base64.") from None


class Receiver(http.server.ThreadingHTTPServer):
    """Listens on loopback only, and answers every POST with the status ``answer``."""

    daemon_threads = True
    verifier: Webhook

    def __init__(self, port: int, answer: int) -> None:
        self.answer = answer
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise CliError(f"Cannot listen on port {port}: {error.strerror}. Choose another with --port.") from None

    def handle_error(self, *_: object) -> None:
        """Print that a sender has disconnected, without a traceback."""
        typer.echo(f"A request ended early: {show.plain(sys.exception() or 'unknown reason')}")


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and len(length) < 10 and int(length) <= MAX_WEBHOOK_BYTES):
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        typer.echo(f"{time.strftime('%H:%M:%S')}  {describe(self.server.verifier, dict(self.headers), body)}")
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing: ``do_POST`` prints each webhook."""


def describe(verifier: Webhook, headers: Mapping[str, str], body: bytes) -> str:
    """A webhook as one line: its event, its id, and whether its signature is valid."""
    webhook_id = {name.lower(): value for name, value in headers.items()}.get("webhook-id", "-")
    try:
        event = _event(json.loads(body))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        event = f"{len(body)} bytes that are not a batch event"
    try:
        verifier.verify(body, dict(headers), json_parse=False)
        signature = "verified"
    except (WebhookVerificationError, ValueError) as error:
        signature = f"NOT verified ({error})"
    return show.plain(f"{event}  {webhook_id}  {signature}")


def _event(event: Any) -> str:
    batch = event["data"]
    counts = show.counts(batch) or "no lines counted"
    return f"{event['type']}  {batch['id']}  {batch['status']} ({counts})"
