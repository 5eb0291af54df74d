"""What happened to each webhook, in the table ``Batches``: pk the batch, sk ``delivery#<id>``.

A batch ends once, so it has at most one delivery; its id depends on the event alone.
"""

import time
from typing import Any

from nightshift.core import aws, settings
from nightshift.core.errors import NotFoundError
from nightshift.core.ids import derived_id
from nightshift.webhooks.sender import Attempt

# Redelivery has no end; the list of what came of it has.
MAX_ATTEMPTS_KEPT = 100


def begin(event: dict[str, Any], url: str) -> dict[str, Any]:
    """The delivery of an event's ``detail``, made if it is new."""
    dynamodb = aws.client("dynamodb")
    delivery_id = _id(event)
    fresh: dict[str, Any] = {
        "pk": event["batch"]["id"],
        "sk": f"delivery#{delivery_id}",
        "id": delivery_id,
        "event_id": event["id"],
        "event_type": f"batch.{event['batch']['status']}",
        "url": url,
        "state": "pending",
        "created_at": int(time.time()),
        "tries": 0,
        "attempts": [],
    }
    try:
        dynamodb.put_item(
            TableName=settings.table("batches"),
            Item=aws.item(fresh),
            ConditionExpression="attribute_not_exists(pk)",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return get(fresh["pk"], delivery_id)
    return fresh


def withdraw(event: dict[str, Any]) -> None:
    """End the delivery of an event's ``detail``, if one has begun: the receiver was removed."""
    try:
        delivery = get(event["batch"]["id"], _id(event))
    except NotFoundError:
        return
    if delivery["state"] == "pending":
        record(delivery, delivery["url"], Attempt(error="webhook_deleted"), "failed", None)


def get(batch_id: str, delivery_id: str) -> dict[str, Any]:
    """The delivery's item.

    Raises:
        NotFoundError: the batch has no such delivery.
    """
    if len(delivery_id) < 64:
        found = aws.client("dynamodb").get_item(
            TableName=settings.table("batches"),
            Key=aws.item({"pk": batch_id, "sk": f"delivery#{delivery_id}"}),
            ConsistentRead=True,
        )
        if "Item" in found:
            return aws.plain(found["Item"])
    raise NotFoundError("No such delivery.", code="delivery_not_found", param="delivery_id")


def of_batch(batch_id: str) -> list[dict[str, Any]]:
    found = aws.client("dynamodb").query(
        TableName=settings.table("batches"),
        KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
        ExpressionAttributeValues=aws.item({":pk": batch_id, ":prefix": "delivery#"}),
    )
    return [aws.plain(item) for item in found["Items"]]


def record(delivery: dict[str, Any], url: str, attempt: Attempt, state: str, next_try_at: int | None) -> None:
    """Write down one try, and what is to come."""
    now = int(time.time())
    tried = {"attempted_at": now, "status_code": attempt.status, "error": attempt.error}
    _write(
        delivery
        | {
            "url": url,
            "state": state,
            "tries": delivery["tries"] + 1,
            "attempts": [*delivery["attempts"], tried][-MAX_ATTEMPTS_KEPT:],
            "next_attempt_at": next_try_at,
        }
    )


def restart(delivery: dict[str, Any]) -> dict[str, Any]:
    """The delivery with all of its tries before it again."""
    restarted = delivery | {"state": "pending", "tries": 0, "next_attempt_at": int(time.time())}
    _write(restarted)
    return restarted


def _id(event: dict[str, Any]) -> str:
    return derived_id("whd", event["id"])


def _write(delivery: dict[str, Any]) -> None:
    aws.client("dynamodb").put_item(TableName=settings.table("batches"), Item=aws.item(delivery))
