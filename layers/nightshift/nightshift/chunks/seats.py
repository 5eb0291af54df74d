"""Where a task's worker gets its place at its route and its account's purse, and who wakes the batches that wait."""

import time

from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.record import Account
from nightshift.batches import executions
from nightshift.batches.charges import ChunkCharges
from nightshift.batches.cost import nano_dollars
from nightshift.batches.record import Batch
from nightshift.chunks.meter import Meter
from nightshift.chunks.place import Place
from nightshift.core.errors import NotFoundError
from nightshift.core.ids import new_id
from nightshift.input.plan import Task
from nightshift.results.usage import Usage
from nightshift.routes import lease as leases
from nightshift.routes.lease import Lease
from nightshift.routes.route import Route
from nightshift.routes.share import share_out
from nightshift.routes.state import RouteState


def account_of(batch: Batch) -> Account:
    """The batch's account; one without limits of its own if it was deleted while its batch ran."""
    try:
        return accounts.get(batch.account_id)
    except NotFoundError:
        return Account(id=batch.account_id, name="", created_at=0)


def place_of(task: Task, batch: Batch, route: Route, weight: int) -> Place:
    """The place of the task's chunk at ``route``, for a worker that starts now."""
    lease = Lease(
        worker=new_id("run"),
        account_id=batch.account_id,
        weight=weight,
        batch_id=batch.id,
        batch_created_at=batch.created_at,
        chunk=task.chunk,
        wanted=0,
        since=0.0,
        expires_at=0.0,
    )
    return Place(route, lease, RouteState(route.id), wake)


def leave_queues(batch: Batch) -> None:
    """Give up the batch's places in the queues of its routes, in which it would keep the batches behind it waiting."""
    if batch.plan is not None:
        for route in {route.id for route in (batch.plan.route, batch.rescue_route) if route is not None}:
            RouteState(route).drop_waiting(batch.id)


def meter_of(task: Task, batch: Batch, quotas: Quotas, run_id: str | None = None) -> Meter | None:
    """What bounds the cost of the task's chunk; None where its account has no limit. ``run_id``: of ``begin_run``."""
    if not quotas.limit_spending:
        return None  # the end of the batch charges all of it
    charges = ChunkCharges(batch.account_id, batch.id, task.chunk, run_id)

    def price(usage: Usage, batch_usage: Usage) -> int:
        return nano_dollars(
            batch,
            (usage.input_tokens, usage.output_tokens),
            (batch_usage.input_tokens, batch_usage.output_tokens),
        )

    return Meter(charges, price)


def wake(lease: Lease) -> None:
    """Let the batch of a waiting lease go on at once, if all of it waits.

    A chunk whose batch works otherwise looks again by itself soon.
    """
    executions.wake_parked(lease.account_id, lease.batch_id)


def wake_first(route: Route) -> int:
    """Wake the waiting batches for which the route has room, after its operator resumed it. Returns how many."""
    now = time.time()
    view = RouteState(route.id).read()
    live = leases.live(view.leases, now)
    sharing = share_out(live, route.max_concurrency, view.turns, now)
    woken = leases.to_wake(live, sharing.shares, leases.free(live, route.max_concurrency), now)
    for lease in woken:
        wake(lease)
    return len(woken)
