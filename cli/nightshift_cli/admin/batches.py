"""`nightshift admin batches`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import Operator, operator_options, print_table
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.batches.cost import Cost
    from nightshift.batches.record import Batch
    from nightshift.submissions.record import Submission

app = typer.Typer(help="What callers do not see of their batches.", no_args_is_help=True)


@app.command("show")
@with_options(operator_options)
def show_batch(operator: Operator, batch_id: Annotated[str, typer.Argument(metavar="BATCH_ID")]) -> None:
    """Show the route and the cost of a batch, and its batches at the provider."""
    with operator:
        from nightshift.batches import store as batches
        from nightshift.batches.cost import cost_of
        from nightshift.submissions import store as submissions

        batch = _find(batch_id)
        counts, cost = batches.live_counts(batch), cost_of(batch)
        submitted = submissions.of_batch(batch.id)
    route = batch.plan.route if batch.plan else None
    rows: list[tuple[str, object]] = [
        ("id", batch.id),
        ("account", batch.account_id),
        ("status", batch.status),
        ("created", show.moment(batch.created_at)),
        ("expires", show.moment(batch.expires_at)),
        ("lines", f"{counts.completed} completed, {counts.failed} failed, {counts.total} total" if counts else None),
        ("execution", batch.execution),
        ("waits until", show.moment(parked) if (parked := batch.parked_until or 0) > time.time() else None),
        ("route", f"{route.provider} {route.upstream_model} {route.sku.id} ({route.mode})" if route else None),
        ("rescued by", f"{rescue.provider} {rescue.sku.id}" if (rescue := batch.rescue_route) else None),
        ("cost", None if batch.usage is None else _dollars(cost.dollars)),
    ]
    for line in show.table(row for row in rows if row[1] is not None):
        typer.echo(line)
    if batch.usage is not None:
        typer.echo()
        ways = (("batch API", cost.batch), ("real time", cost.realtime))
        print_table(("ANSWERED BY", "LINES", "INPUT TOKENS", "OUTPUT TOKENS", "COST"), [_way(*way) for way in ways])
    if submitted:
        typer.echo()
        head = ("CHUNK", "STEP", "SINCE", "ROUND", "LINES", "PROVIDER'S BATCHES", "PROBLEM")
        print_table(head, [_submission(chunk, one) for chunk, one in submitted])


def _find(batch_id: str) -> "Batch":
    """The batch of whichever account has it."""
    from nightshift.accounts import store as accounts
    from nightshift.batches import store as batches

    for account in accounts.list_accounts():
        batch = batches.find(account.id, batch_id)
        if batch is not None:
            return batch
    raise CliError(f"There is no batch {batch_id}.")


def _way(name: str, cost: "Cost") -> tuple[object, ...]:
    return name, cost.lines, cost.input_tokens, cost.output_tokens, _dollars(cost.dollars)


def _dollars(amount: float | None) -> str:
    return "unknown price" if amount is None else f"${amount:.6f}"


def _submission(chunk: int, one: "Submission") -> tuple[object, ...]:
    batch_ids = " ".join(one.batch_ids) or None
    return chunk, one.step, show.moment(int(one.since)), one.round, one.lines, batch_ids, one.problem
