"""The routes that operators applied, in the table ``Routes``: pk the model, sk the provider and the SKU."""

from collections.abc import Iterable
from typing import Any

import msgspec

from nightshift.core import aws, settings
from nightshift.routes.route import Route


def for_model(model: str) -> list[Route]:
    """All routes of ``model``, usable or not."""
    # A key of DynamoDB is at most 2,048 bytes: a longer name has no route.
    if len(model.encode()) > 2048:
        return []
    pages = (
        aws.client("dynamodb")
        .get_paginator("query")
        .paginate(
            TableName=settings.table("routes"),
            KeyConditionExpression="pk = :model",
            ExpressionAttributeValues=aws.item({":model": model}),
        )
    )
    return [_route(found) for page in pages for found in page["Items"]]


def all_routes() -> list[Route]:
    pages = aws.client("dynamodb").get_paginator("scan").paginate(TableName=settings.table("routes"))
    routes = [_route(found) for page in pages for found in page["Items"]]
    return sorted(routes, key=lambda route: (route.model, route.priority, route.provider))


def apply(routes: Iterable[Route]) -> tuple[int, int]:
    """Make ``routes`` all the routes there are of the models they name. Returns how many were put and deleted.

    Other models are left alone.
    """
    wanted = {(route.model, _sort_key(route)): route for route in routes}
    table = settings.table("routes")
    dynamodb = aws.client("dynamodb")
    for (model, sort_key), route in wanted.items():
        content = msgspec.json.encode(route).decode()
        dynamodb.put_item(TableName=table, Item=aws.item({"pk": model, "sk": sort_key, "route": content}))
    stale = [
        (route.model, _sort_key(route))
        for model in {model for model, _ in wanted}
        for route in for_model(model)
        if (route.model, _sort_key(route)) not in wanted
    ]
    for model, sort_key in stale:
        dynamodb.delete_item(TableName=table, Key=aws.item({"pk": model, "sk": sort_key}))
    return len(wanted), len(stale)


def _sort_key(route: Route) -> str:
    return f"{route.provider}\n{route.sku.id}"


def _route(found: dict[str, Any]) -> Route:
    return msgspec.json.decode(aws.plain(found)["route"], type=Route)
