"""Why a batch waits, for its operator."""

from typing import TYPE_CHECKING

from nightshift_cli import show

if TYPE_CHECKING:
    from nightshift.batches.record import Batch
    from nightshift.routes.route import Route
    from nightshift.routes.state import View


def reasons(batch: "Batch", now: float) -> list[str]:
    """Why the batch sends nothing, in words that say what ends it; empty if it sends, or has ended."""
    from nightshift.accounts import spend
    from nightshift.accounts import store as accounts
    from nightshift.batches import charges
    from nightshift.routes.state import RouteState

    if batch.plan is None or not batch.is_open_to_work:
        return []
    found = []
    account = accounts.get(batch.account_id)
    if reached := spend.reached(account.quotas, charges.spent(account.id)):
        found.append(f"the account has spent {reached}: `admin accounts quotas` raises the limit")
    route = batch.rescue_route or batch.plan.route
    return found + route_reasons(route, RouteState(route.id).read(), batch.id, now)


def route_reasons(route: "Route", view: "View", batch_id: str, now: float) -> list[str]:
    """Why the route answers nothing of the batch."""
    from nightshift.routes.lease import live

    found = []
    if view.control == "paused":
        found.append(f"the route is paused: `admin routes resume {route.model}`")
    if (trouble := view.health.trouble) is not None:
        found.append(show.plain(f"the route is {view.health.state} ({trouble.kind}): {trouble.words}"))
    leases = live(view.leases, now)
    own = [lease for lease in leases if lease.batch_id == batch_id]
    if found or not own or any(lease.granted for lease in own):
        return found
    if any(lease.granted for lease in leases):
        return ["others have all of its route: `admin routes status` shows who"]
    level = f", at a level of {view.level.limit:.0%}" if view.level.limit < 1 else ""
    return [f"its route has no room at the moment{level}: `admin routes status` shows more"]
