"""A webhook's body, and its signature after Standard Webhooks (https://www.standardwebhooks.com)."""

import json
import secrets
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True):
    """The event that a batch has ended, as it comes from the bus. ``batch`` is the batch object of the API.

    The batch object is passed on as it is, so it has no type here: a field that is added to it reaches the receiver.
    """

    id: str
    account_id: str
    created_at: int
    batch: dict[str, Any]

    @property
    def batch_id(self) -> str:
        batch_id: str = self.batch["id"]
        return batch_id

    @property
    def type(self) -> str:
        return f"batch.{self.batch['status']}"

    @property
    def callback_url(self) -> str | None:
        url: str | None = self.batch["callback_url"]
        return url


def payload(event: Event) -> bytes:
    """The body of the request to a receiver: the same bytes on every try."""
    body = {
        "id": event.id,
        "object": "event",
        "type": event.type,
        "created_at": event.created_at,
        "data": event.batch,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def signed_headers(webhook_id: str, body: bytes, signing_secrets: Sequence[str], now: float) -> dict[str, str]:
    """The headers of the request: three are those of Standard Webhooks, with one signature for each secret."""
    from standardwebhooks import Webhook

    sent_at = datetime.fromtimestamp(now, UTC)
    signatures = [Webhook(secret).sign(webhook_id, sent_at, body.decode()) for secret in signing_secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Nightshift-Webhooks/1",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def new_secret() -> str:
    """A signing secret in the form of Standard Webhooks: ``whsec_`` and 32 random bytes in base64."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()
