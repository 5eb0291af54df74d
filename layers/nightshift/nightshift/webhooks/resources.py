"""Webhooks and their deliveries as the API shows them. Every field is always there, null when unset."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from nightshift.webhooks.record import Attempt, Delivery, State


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


class DeliveryResource(Struct, frozen=True, kw_only=True):
    """A webhook of one batch, and every try to deliver it."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: Annotated[str, Meta(description="The webhook-id of every try.")]
    event_type: str
    url: str
    status: State
    created_at: int
    next_attempt_at: int | None
    attempts: list[Attempt]


def delivery_object(delivery: Delivery) -> DeliveryResource:
    """A delivery as the API shows it."""
    return DeliveryResource(
        id=delivery.id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        url=delivery.url,
        status=delivery.state,
        created_at=delivery.created_at,
        next_attempt_at=delivery.next_attempt_at,
        attempts=list(delivery.attempts),
    )
