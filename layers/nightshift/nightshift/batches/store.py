"""Batches in the table ``Batches``: one item for the batch, one for each chunk's progress.

| pk         | sk           | holds                                                                   |
| ---------- | ------------ | ----------------------------------------------------------------------- |
| ``acct_…`` | ``batch_…``  | the batch: what its object shows, its route, its number of lines        |
| ``batch_…``| ``chunk#0007``| completed and failed lines of one chunk so far, absolute               |
| ``batch_…``| ``problem#0007``| why a chunk was given up                                             |

A status changes by ``transition`` alone: one conditional write that names the status it expects. The table's
stream turns each such write into an event, so no change goes without one and none has two (ADR 3).
While a batch has not ended, its ``open`` (the account) and ``created_at`` put it into the index ``OpenBatches``: for
quotas, for files in use, and for the sweep.
"""

import time
from typing import Any

from nightshift.batches.status import TERMINAL, Status, sources, timestamp_field
from nightshift.core import aws, settings
from nightshift.core.errors import NotFoundError

OPEN_INDEX = "OpenBatches"


def put(item: dict[str, Any]) -> None:
    """Record a new batch; ``item`` has ``pk``, ``sk`` and what the batch object needs."""
    aws.client("dynamodb").put_item(
        TableName=settings.table("batches"),
        # No condition: nobody else has the id, and a retry of a write whose answer was lost would not meet it.
        Item=aws.item({**item, "status": "validating", "open": item["pk"]}),
    )


def withdraw(account_id: str, batch_id: str) -> None:
    """Delete a batch whose execution could not be started, so that a caller told "try again" leaves no trace."""
    aws.client("dynamodb").delete_item(
        TableName=settings.table("batches"), Key=aws.item({"pk": account_id, "sk": batch_id})
    )


def get(account_id: str, batch_id: str) -> dict[str, Any]:
    """The batch's item, read consistently.

    Raises:
        NotFoundError: unknown or another account's; the answer does not tell which.
    """
    if batch_id.startswith("batch_") and len(batch_id) < 64:
        found = aws.client("dynamodb").get_item(
            TableName=settings.table("batches"),
            Key=aws.item({"pk": account_id, "sk": batch_id}),
            ConsistentRead=True,
        )
        if "Item" in found:
            return aws.plain(found["Item"])
    raise NotFoundError("No such batch.", code="batch_not_found", param="batch_id")


def list_page(
    account_id: str, *, limit: int, after: str | None, status: Status | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """The account's batches, newest first, after the id ``after``; then whether there are more.

    ``after`` need not exist any more: ids sort by time, so the page goes on from where it would be.
    """
    query: dict[str, Any] = {
        "TableName": settings.table("batches"),
        "KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)",
        "ScanIndexForward": False,
    }
    values = {":pk": account_id, ":prefix": "batch_"}
    if status is None:
        query["Limit"] = limit + 1
    else:
        query["FilterExpression"] = "#status = :status"
        query["ExpressionAttributeNames"] = {"#status": "status"}
        values[":status"] = status
    query["ExpressionAttributeValues"] = aws.item(values)
    return aws.page(query, {"pk": account_id, "sk": after} if after else None, limit)


def transition(
    account_id: str, batch_id: str, target: Status, *, expected: Status, fields: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Move the batch from ``expected`` to ``target`` and set ``fields`` with it, in one conditional write.

    Returns the new item, or None where the batch was not in ``expected``, or is to expire and the ``target`` is another
    end: somebody else moved it, so read again.

    Raises:
        ValueError: there is no such edge.
    """
    if expected not in sources(target):
        raise ValueError(f"a batch cannot go from {expected} to {target}")
    changes = {"status": target, **(fields or {})}
    if field := timestamp_field(target):
        changes[field] = int(time.time())
    names = {f"#{index}": name for index, name in enumerate(changes)}
    values = aws.item({f":{index}": value for index, value in enumerate(changes.values())})
    sets = ", ".join(f"#{index} = :{index}" for index in range(len(changes)) if f":{index}" in values)
    names = {name: field for name, field in names.items() if f":{name[1:]}" in values}
    dynamodb = aws.client("dynamodb")
    try:
        written = dynamodb.update_item(
            TableName=settings.table("batches"),
            Key=aws.item({"pk": account_id, "sk": batch_id}),
            UpdateExpression=f"SET {sets}" + (" REMOVE #open" if target in TERMINAL else ""),
            ConditionExpression="#status = :expected"
            + (" AND attribute_not_exists(overdue)" if target == "finalizing" else ""),
            ExpressionAttributeNames={
                **names,
                "#status": "status",
                **({"#open": "open"} if target in TERMINAL else {}),
            },
            ExpressionAttributeValues={**values, ":expected": {"S": expected}},
            ReturnValues="ALL_NEW",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return None
    return aws.plain(written["Attributes"])


def mark_overdue(account_id: str, batch_id: str) -> None:
    """Decide that the batch in progress will end as ``expired``, unless it is cancelled. From then on it cannot be
    ``finalizing``: of several who end it, none may complete it when another has marked its lines as expired."""
    dynamodb = aws.client("dynamodb")
    try:
        dynamodb.update_item(
            TableName=settings.table("batches"),
            Key=aws.item({"pk": account_id, "sk": batch_id}),
            UpdateExpression="SET overdue = :true",
            ConditionExpression="#status = :in_progress",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=aws.item({":true": True, ":in_progress": "in_progress"}),
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return  # it was moved on


def files_written_at(account_id: str, batch_id: str) -> int:
    """When the batch's files are written: the first time that this is asked, however often it is asked."""
    written = aws.client("dynamodb").update_item(
        TableName=settings.table("batches"),
        Key=aws.item({"pk": account_id, "sk": batch_id}),
        UpdateExpression="SET files_written_at = if_not_exists(files_written_at, :now)",
        ExpressionAttributeValues=aws.item({":now": int(time.time())}),
        ReturnValues="ALL_NEW",
    )
    return int(aws.plain(written["Attributes"])["files_written_at"])


def put_progress(batch_id: str, chunk: int, *, completed: int, failed: int) -> None:
    """Record how many lines of a chunk are done. Absolute, and never less than what is there: a retry counts nothing
    twice, and a slower copy of the same chunk takes nothing back."""
    dynamodb = aws.client("dynamodb")
    try:
        dynamodb.put_item(
            TableName=settings.table("batches"),
            Item=aws.item(
                {
                    "pk": batch_id,
                    "sk": f"chunk#{chunk:04d}",
                    "completed": completed,
                    "failed": failed,
                    "done": completed + failed,
                }
            ),
            ConditionExpression="attribute_not_exists(pk) OR done <= :done",
            ExpressionAttributeValues=aws.item({":done": completed + failed}),
        )
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return  # another copy of the chunk is further on


def put_problem(batch_id: str, chunk: int, problem: str) -> None:
    """Record why a chunk was given up, for the batch's ``errors``. Not for secrets: callers see it."""
    aws.client("dynamodb").put_item(
        TableName=settings.table("batches"),
        Item=aws.item({"pk": batch_id, "sk": f"problem#{chunk:04d}", "problem": problem}),
    )


def problems(batch_id: str) -> list[str]:
    """Why chunks were given up, each reason once."""
    pages = (
        aws.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=settings.table("batches"),
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues=aws.item({":pk": batch_id, ":prefix": "problem#"}),
        )
    )
    return list(dict.fromkeys(aws.plain(found)["problem"] for page in pages for found in page["Items"]))


def live_counts(item: dict[str, Any]) -> dict[str, int] | None:
    """The batch's ``request_counts`` now: stored at its end, summed over its chunks before."""
    if "request_counts" in item or "lines" not in item:
        return item.get("request_counts")
    counts = {"total": int(item["lines"]), "completed": 0, "failed": 0}
    if item["status"] == "validating":
        return counts
    pages = (
        aws.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=settings.table("batches"),
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues=aws.item({":pk": item["sk"], ":prefix": "chunk#"}),
        )
    )
    for page in pages:
        for found in page["Items"]:
            progress = aws.plain(found)
            counts["completed"] += progress["completed"]
            counts["failed"] += progress["failed"]
    return counts


def open_of(account_id: str) -> list[dict[str, Any]]:
    """The account's batches that have not ended: ``sk``, ``status``, ``input_file_id`` and, once known, ``lines``."""
    pages = (
        aws.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=settings.table("batches"),
            IndexName=OPEN_INDEX,
            KeyConditionExpression="#open = :account",
            ExpressionAttributeNames={"#open": "open"},
            ExpressionAttributeValues=aws.item({":account": account_id}),
        )
    )
    return [aws.plain(found) for page in pages for found in page["Items"]]


def open_of_all(*, created_before: int) -> list[dict[str, Any]]:
    """Every account's batches that have not ended and were created before then."""
    pages = (
        aws.client("dynamodb")
        .get_paginator("scan")
        .paginate(
            TableName=settings.table("batches"),
            IndexName=OPEN_INDEX,
            FilterExpression="created_at < :before",
            ExpressionAttributeValues=aws.item({":before": created_before}),
        )
    )
    return [aws.plain(found) for page in pages for found in page["Items"]]
