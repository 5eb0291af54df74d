"""Webhooks: an account's receiver and secret, and the delivery of one event."""

import asyncio
import json
import secrets
import socket
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nightshift.core import aws, settings
from nightshift.core.errors import BadRequestError
from nightshift.core.headers import retry_after
from nightshift.webhooks import addresses

if TYPE_CHECKING:
    from aiohttp.typedefs import LooseHeaders

CONNECT_SECONDS = 5
WHOLE_SECONDS = 15
MAX_ANSWER_BYTES = 64 * 1024
# SQS hides a message for at most 12 hours, counted from when it was received.
MAX_DELAY_SECONDS = 12 * 3600 - 30
# How long a rotated secret still signs beside the new one.
OVERLAP_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Receiver:
    """An account's default receiver, and the secrets that sign, newest first."""

    url: str | None
    signing_secrets: list[str]


def new_secret() -> str:
    """A secret as Standard Webhooks has it: ``whsec_`` and 32 random bytes in base64."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def receiver(account_id: str) -> Receiver:
    found = aws.client("dynamodb").get_item(
        TableName=settings.table("accounts"), Key=aws.item({"pk": account_id, "sk": "webhook"}), ConsistentRead=True
    )
    item = aws.plain(found.get("Item", {}))
    signing = [item["secret"]] if "secret" in item else []
    if item.get("previous_until", 0) > time.time():
        signing.append(item["previous_secret"])
    return Receiver(item.get("url"), signing)


def put_url(account_id: str, url: str) -> str | None:
    """Set the account's default receiver. Returns the signing secret where nobody has been shown it yet."""
    _update(account_id, "SET #url = :url", {":url": url}, {"#url": "url"})
    _ensure_secret(account_id)
    dynamodb = aws.client("dynamodb")
    try:
        _update(account_id, "SET shown = :yes", {":yes": True}, condition="attribute_not_exists(shown)")
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return None
    return receiver(account_id).signing_secrets[0]


def delete_url(account_id: str) -> None:
    """Forget the default receiver; the secret stays, because batches with a ``callback_url`` are signed with it."""
    _update(account_id, "REMOVE #url", {}, {"#url": "url"})


def rotate(account_id: str) -> str:
    """A new signing secret. The old one goes on signing beside it for ``OVERLAP_SECONDS``."""
    secret = new_secret()
    old = receiver(account_id).signing_secrets[:1]
    values: dict[str, Any] = {":secret": secret, ":yes": True}
    expression = "SET secret = :secret, shown = :yes"
    if old:
        expression += ", previous_secret = :old, previous_until = :until"
        values |= {":old": old[0], ":until": int(time.time()) + OVERLAP_SECONDS}
    _update(account_id, expression, values)
    return secret


def _ensure_secret(account_id: str) -> None:
    dynamodb = aws.client("dynamodb")
    try:
        _update(account_id, "SET secret = :secret", {":secret": new_secret()}, condition="attribute_not_exists(secret)")
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return  # it has one


def _update(
    account_id: str,
    expression: str,
    values: dict[str, Any],
    names: dict[str, str] | None = None,
    condition: str | None = None,
) -> None:
    request: dict[str, Any] = {
        "TableName": settings.table("accounts"),
        "Key": aws.item({"pk": account_id, "sk": "webhook"}),
        "UpdateExpression": expression,
    }
    if values:
        request["ExpressionAttributeValues"] = aws.item(values)
    if names:
        request["ExpressionAttributeNames"] = names
    if condition:
        request["ConditionExpression"] = condition
    aws.client("dynamodb").update_item(**request)


def payload(event: dict[str, Any]) -> bytes:
    """The body that a receiver gets for an event's ``detail``: the same bytes on every try."""
    batch = event["batch"]
    body = {
        "id": event["id"],
        "object": "event",
        "type": f"batch.{batch['status']}",
        "created_at": event["created_at"],
        "data": batch,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def signed_headers(webhook_id: str, body: bytes, signing_secrets: list[str], now: float) -> dict[str, str]:
    """The three headers of Standard Webhooks; one signature for each secret."""
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try came to: a ``status``, or a short ``error`` that names no address."""

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver says that it is gone for good."""
        return self.status == 410


def next_delay(attempt: Attempt, tries: int, delays: list[int], chance: float) -> int | None:
    """Seconds until the next try, after ``tries`` of them; None where there is none.

    ``delays`` are the gaps between tries. A tenth of jitter (``chance`` is uniform in [0, 1)) keeps a receiver that
    comes back from being met by all at once; a longer ``Retry-After`` is honoured.
    """
    if attempt.taken or attempt.gone or tries > len(delays):
        return None
    return min(MAX_DELAY_SECONDS, round(max(delays[tries - 1] * (1 + chance / 10), attempt.retry_after or 0)))


def deliver(event: dict[str, Any], url: str, account: Receiver) -> Attempt:
    """Send an event's ``detail`` to ``url``, once, signed with the account's secrets."""
    signing = account.signing_secrets
    if not signing:
        _ensure_secret(event["account_id"])
        signing = receiver(event["account_id"]).signing_secrets
    body = payload(event)
    headers = signed_headers(event["id"], body, signing, time.time())
    return asyncio.run(_post(url, body, headers, settings.allow_local_webhooks()))


class _Unwaited(ThreadPoolExecutor):
    """For looking names up: ``asyncio.run`` waits for its executor at the end, and getaddrinfo cannot be stopped."""

    def shutdown(self, *_: Any, **__: Any) -> None:
        super().shutdown(wait=False, cancel_futures=True)


async def _post(url: str, body: bytes, headers: "LooseHeaders", allow_local: bool) -> Attempt:
    import aiohttp

    try:
        addresses.check_url(url, allow_local=allow_local)
    except BadRequestError:
        return Attempt(error="invalid_callback_url")
    allowed = addresses.is_loopback if allow_local and addresses.is_local(url) else addresses.is_public
    refused: list[bool] = []

    def open_socket(info: tuple[Any, ...]) -> socket.socket:
        # Here, because this is the address that is connected to, whatever the name said before.
        family, kind, protocol, _, address = info
        if not allowed(address[0]):
            refused.append(True)
            raise OSError("refused address")
        return socket.socket(family, kind, protocol)

    asyncio.get_running_loop().set_default_executor(_Unwaited())
    try:
        timeout = aiohttp.ClientTimeout(total=WHOLE_SECONDS, sock_connect=CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(socket_factory=open_socket)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            # The status says it all. The body is for good manners: many receivers take a reset for an error.
            with suppress(TimeoutError, aiohttp.ClientError):
                await response.content.read(MAX_ANSWER_BYTES)
            return Attempt(status=response.status, retry_after=retry_after(response.headers, time.time()))
    except TimeoutError:
        return Attempt(error="timeout")
    except (aiohttp.ClientError, OSError, ValueError):
        return Attempt(error="refused_address" if refused else "connection_failed")
