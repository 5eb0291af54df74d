"""`nightshift admin routes delete`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.routes import Model, Provider, SkuId, chosen_routes
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, records
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.routes.route import Route

_HEAD = ("MODEL", "PROVIDER", "SKU", "STATE", "OPEN BATCHES")


@with_options(operator_options)
def delete_routes(
    operator: Operator,
    model: Model,
    provider: Provider = None,
    sku: SkuId = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the routes of a model, or one of them. Batches that run go on with the copy that they have."""
    with operator as stack:
        from nightshift.routes import store as routes

        chosen = chosen_routes(model, provider, sku)
        if not yes:
            names = "; ".join(_name(route) for route in chosen)
            typer.confirm(f"Delete {show.plain(names)}?", abort=True, err=True)
        stack.entry.add(changes="; ".join(f"- {_name(route)}" for route in chosen))
        rows = []
        for route in chosen:
            routes.delete(route)
            typer.echo(show.plain(f"{_name(route)}: deleted"), err=as_json)
            rows.append((route.model, route.provider, route.sku.id, "deleted", _forget(route)))
    if as_json:
        typer.echo(show.as_json(records(_HEAD, rows)))


def _forget(route: "Route") -> int:
    """Delete the state of a deleted route, unless open batches need it: they share it, and a pause still holds them.

    Returns how many batches that are.
    """
    from nightshift.routes.state import RouteState

    state = RouteState(route.id)
    count = _locked(route.id)
    if not count:
        state.forget()
        return 0
    typer.echo(show.plain(f"Open batches that go on with their copy of {_name(route)}: {count}."), err=True)
    if state.read().control == "paused":
        typer.echo("It is paused, so they wait: apply the route again and resume it, or cancel them.", err=True)
    return count


def _locked(route_id: str) -> int:
    """How many open batches are locked to the route, or rescued by it."""
    from nightshift.batches import store as batches
    from nightshift.batches.status import TERMINAL

    found = (batches.find(one.account_id, one.id) for one in batches.open_of_all(created_before=int(time.time()) + 60))
    working = [batch for batch in found if batch is not None and batch.status not in TERMINAL and batch.plan]
    used = [{route.id for route in (batch.plan and batch.plan.route, batch.rescue_route) if route} for batch in working]
    return sum(route_id in ids for ids in used)


def _name(route: "Route") -> str:
    return f"{route.model}, {route.provider}, {route.sku.id}"
