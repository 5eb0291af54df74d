"""`nightshift admin dead-letters`."""

from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import (
    AsJson,
    Operator,
    account_names,
    operator_options,
    print_outcome,
    print_table,
    records,
)
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.webhooks.queue import Letter

app = typer.Typer(help="Webhooks that no receiver took in nine tries.", no_args_is_help=True)

_HEAD = ("BATCH", "ACCOUNT", "EVENT", "CALLBACK URL", "GIVEN UP")


@app.command("list")
@with_options(operator_options)
def list_letters(operator: Operator, as_json: AsJson = False) -> None:
    """List the dead letters."""
    with operator:
        from nightshift.webhooks import queue

        letters = sorted(queue.dead_letters(), key=lambda letter: letter.sent_at)
        queue.give_back(letters)
        names = account_names()
    print_table(_HEAD, [_row(one, names) for one in letters], as_json)


@app.command("redrive")
@with_options(operator_options)
def redrive_letters(
    operator: Operator,
    batch: Annotated[str | None, typer.Option(metavar="BATCH_ID", help="Only the letters of this batch.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only the letters of this account.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, all of their tries anew. Do it when their receiver works again."""
    with operator:
        from nightshift.accounts import store as accounts
        from nightshift.webhooks import queue

        account_id = accounts.find(account).id if account else None
        names = account_names()
        others, redriven = [], []
        # All are read first: one that fails again at once would come round again.
        for letter in queue.dead_letters():
            if batch in (None, letter.event.batch_id) and account_id in (None, letter.event.account_id):
                queue.redrive(letter)
                redriven.append(letter)
            else:
                others.append(letter)
        queue.give_back(others)
    outcome = records(_HEAD, [_row(one, names) for one in redriven])
    if not redriven and (batch or account):
        if as_json:
            typer.echo(show.as_json(outcome))
        typer.echo("There is no such dead letter.", err=True)
        raise typer.Exit(1)
    print_outcome(outcome, f"Dead letters sent again: {len(redriven)}.", as_json)


def _row(letter: "Letter", names: dict[str, str]) -> tuple[object, ...]:
    event = letter.event
    account = names.get(event.account_id, event.account_id)
    return event.batch_id, account, event.type, event.callback_url, show.moment(letter.sent_at)
