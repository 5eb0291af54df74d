"""The routes that operators applied, in the table ``Routes``: pk the model, sk the provider and the SKU."""

from collections.abc import Iterable

import msgspec

from nightshift.core.table import Item, Table
from nightshift.routes.route import MAX_ID_BYTES, Route

_TABLE = Table("routes")


def for_model(model: str) -> list[Route]:
    """All routes of ``model``, usable or not."""
    if len(model.encode()) > MAX_ID_BYTES:
        return []
    return [_route(item) for item in _TABLE.query("#pk = :model", model=model)]


def current(locked: Route) -> Route:
    """The route that a batch is locked to, as the operator has it now.

    Its identity, its price and its mode stay those of ``locked``. So does everything else if the route was deleted: its
    batches go on, because an operator who wants them to stop pauses the route.
    """
    item = _TABLE.get(locked.model, _sort_key(locked))
    if item is None:
        return locked
    return msgspec.structs.replace(_route(item), sku=locked.sku, mode=locked.mode)


def all_routes() -> list[Route]:
    """Every route, by model and priority."""
    routes = [_route(item) for item in _TABLE.scan()]
    return sorted(routes, key=lambda route: (route.model, route.priority, route.provider))


def apply(routes: Iterable[Route]) -> tuple[int, int]:
    """Make ``routes`` all the routes of the models that they name. Returns how many were put and deleted.

    Other models keep their routes.
    """
    given = {(route.model, _sort_key(route)): route for route in routes}
    for (model, sort_key), route in given.items():
        _TABLE.put({"pk": model, "sk": sort_key, "route": msgspec.json.encode(route).decode()})
    stored = {(model, _sort_key(route)) for model in {model for model, _ in given} for route in for_model(model)}
    stale = stored - given.keys()
    for model, sort_key in stale:
        _TABLE.delete(model, sort_key)
    return len(given), len(stale)


def delete(route: Route) -> None:
    """Delete one route. Batches that are locked to it go on with their copy."""
    _TABLE.delete(route.model, _sort_key(route))


def _sort_key(route: Route) -> str:
    return f"{route.provider}\n{route.sku.id}"


def _route(item: Item) -> Route:
    return msgspec.json.decode(item["route"], type=Route)
