"""Webhooks and their deliveries as the API shows them. Every field is always there, null when unset."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct


class WebhookResource(Struct, frozen=True, kw_only=True):
    """An account's default webhook."""

    object: Literal["webhook"] = "webhook"
    url: str


class WebhookSecretResource(Struct, frozen=True, kw_only=True):
    """A webhook with its signing secret. The API shows a secret once; afterwards the field is null."""

    object: Literal["webhook"] = "webhook"
    url: str | None
    secret: str | None


class WebhookDeletedResource(Struct, frozen=True, kw_only=True):
    """What is left of a webhook that was deleted."""

    object: Literal["webhook"] = "webhook"
    deleted: Annotated[bool, Meta(extra_json_schema={"const": True})] = True


class DeliveryAttempt(Struct, frozen=True, kw_only=True):
    """One try of a delivery."""

    attempted_at: int
    status_code: Annotated[int | None, Meta(description="The status of the receiver's response; null without one.")]
    error: str | None


class DeliveryResource(Struct, frozen=True, kw_only=True):
    """A webhook of one batch, and every try to deliver it."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: Annotated[str, Meta(description="The webhook-id of every try.")]
    event_type: str
    url: str
    status: Literal["pending", "succeeded", "failed"]
    created_at: int
    next_attempt_at: int | None
    attempts: list[DeliveryAttempt]


def delivery_object(item: dict[str, Any]) -> DeliveryResource:
    """A delivery as the API shows it, from its item."""
    return DeliveryResource(
        id=item["id"],
        event_id=item["event_id"],
        event_type=item["event_type"],
        url=item["url"],
        status=item["state"],
        created_at=item["created_at"],
        next_attempt_at=item.get("next_attempt_at"),
        attempts=msgspec.convert(item["attempts"], list[DeliveryAttempt]),
    )
