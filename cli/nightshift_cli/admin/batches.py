"""`nightshift admin batches`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_outcome, print_table, records
from nightshift_cli.admin.waiting import reasons
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.batches.cost import Cost
    from nightshift.batches.record import Batch
    from nightshift.submissions.record import Submission

app = typer.Typer(help="What callers do not see of their batches.", no_args_is_help=True)


_HEAD = ("ID", "ACCOUNT", "STATUS", "MODEL", "LINES", "CREATED", "COST")
_SUBMISSION = ("CHUNK", "STEP", "SINCE", "ROUND", "LINES", "PROVIDER'S BATCHES", "PROBLEM")

BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID")]


@app.command("list")
@with_options(operator_options)
def list_batches(
    operator: Operator,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only the batches of this account.")] = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only batches that have not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many of the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the batches of every account, newest first."""
    with operator:
        from nightshift.accounts import store as accounts
        from nightshift.batches import store as batches

        found = [
            (one.name, batch)
            for one in ([accounts.find(account)] if account else accounts.list_accounts())
            for batch in (_open(one.id) if open_only else batches.list_page(one.id, limit=limit, after=None)[0])
        ]
    found.sort(key=lambda each: each[1].id, reverse=True)
    print_table(_HEAD, [_row(*each) for each in found[:limit]], as_json)


@app.command("cancel")
@with_options(operator_options)
def cancel_batch(operator: Operator, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Cancel a batch of whichever account has it. Answered lines are kept."""
    with operator:
        from nightshift.batches.cancel import cancel

        account, found = _find(batch_id)
        batch = cancel(found.account_id, batch_id)
    (outcome,) = records(_HEAD, [_row(account, batch)])
    print_outcome(outcome, f"{batch.id} is {batch.status}.", as_json)


@app.command("show")
@with_options(operator_options)
def show_batch(operator: Operator, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Show the route and the cost of a batch, why it waits, and its batches at the provider."""
    with operator:
        from nightshift.batches import store as batches
        from nightshift.batches.cost import cost_of
        from nightshift.submissions import store as submissions

        account, batch = _find(batch_id)
        counts, cost = batches.progress(batch).counts, cost_of(batch)
        submitted = submissions.of_batch(batch.id)
        waits_for = reasons(batch, time.time())
    route, parked = batch.plan.route if batch.plan else None, batch.parked_until or 0
    rows: list[tuple[str, object]] = [
        ("id", batch.id),
        ("account", account),
        ("status", batch.status),
        ("created", show.moment(batch.created_at)),
        ("expires", show.moment(batch.expires_at)),
        ("lines", f"{counts.completed} completed, {counts.failed} failed, {counts.total} total" if counts else None),
        ("execution", batch.execution),
        ("waits for", "; ".join(waits_for) or None),
        ("waits until", show.moment(min(parked, batch.look_at or parked)) if parked > time.time() else None),
        ("route", f"{route.provider} {route.upstream_model} {route.sku.id} ({route.mode})" if route else None),
        ("rescued by", f"{rescue.provider} {rescue.sku.id}" if (rescue := batch.rescue_route) else None),
        ("cost", None if batch.usage is None else _dollars(cost.dollars)),
    ]
    ways = [("batch API", cost.batch), ("real time", cost.realtime)] if batch.usage is not None else []
    tables = {
        "answered": (("ANSWERED BY", "LINES", "INPUT TOKENS", "OUTPUT TOKENS", "COST"), [_way(*way) for way in ways]),
        "submitted": (_SUBMISSION, [_submission(chunk, one) for chunk, one in submitted]),
    }
    if as_json:
        fields = {name.replace(" ", "_"): value for name, value in rows}
        typer.echo(show.as_json(fields | {name: records(*each) for name, each in tables.items()}))
        return
    for line in show.table((row for row in rows if row[1] is not None), has_head=False):
        typer.echo(line)
    for head, found in tables.values():
        if found:
            typer.echo()
            print_table(head, found)


def _open(account_id: str) -> "list[Batch]":
    """The account's batches that have not ended, however many newer ones have."""
    from nightshift.batches import store as batches
    from nightshift.batches.status import TERMINAL

    found = (batches.find(account_id, one.id) for one in batches.open_of(account_id))
    return [batch for batch in found if batch is not None and batch.status not in TERMINAL]


def _find(batch_id: str) -> "tuple[str, Batch]":
    """The batch of whichever account has it, after that account's name."""
    from nightshift.accounts import store as accounts
    from nightshift.batches import store as batches

    for account in accounts.list_accounts():
        batch = batches.find(account.id, batch_id)
        if batch is not None:
            return account.name, batch
    raise CliError(f"There is no batch {batch_id}.")


def _row(account: str, batch: "Batch") -> tuple[object, ...]:
    from nightshift.batches.cost import cost_of

    lines = batch.request_counts.total if batch.request_counts else batch.plan and batch.plan.lines
    model = batch.plan.model if batch.plan else None
    cost = None if batch.usage is None else _dollars(cost_of(batch).dollars)
    return batch.id, account, batch.status, model, lines, show.moment(batch.created_at), cost


def _way(name: str, cost: "Cost") -> tuple[object, ...]:
    return name, cost.lines, cost.input_tokens, cost.output_tokens, _dollars(cost.dollars)


def _dollars(amount: float | None) -> str:
    return "unknown price" if amount is None else f"${amount:.6f}"


def _submission(chunk: int, one: "Submission") -> tuple[object, ...]:
    batch_ids = " ".join(one.batch_ids) or None
    return chunk, one.step, show.moment(int(one.since)), one.round, one.lines, batch_ids, one.problem
