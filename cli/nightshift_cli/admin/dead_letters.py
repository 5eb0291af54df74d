"""`nightshift admin dead-letters`."""

from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import AsJson, Operator, account_names, operator_options, print_table
from nightshift_cli.options import with_options

app = typer.Typer(help="Webhooks that no receiver took in nine tries.", no_args_is_help=True)


@app.command("list")
@with_options(operator_options)
def list_letters(operator: Operator, as_json: AsJson = False) -> None:
    """List the dead letters."""
    with operator:
        from nightshift.webhooks import queue

        letters = sorted(queue.dead_letters(), key=lambda letter: letter.sent_at)
        queue.give_back(letters)
        names = account_names()
    rows = [
        (
            *(one.event.batch_id, names.get(one.event.account_id, one.event.account_id), one.event.type),
            *(one.event.callback_url, show.moment(one.sent_at)),
        )
        for one in letters
    ]
    print_table(("BATCH", "ACCOUNT", "EVENT", "CALLBACK URL", "GIVEN UP"), rows, as_json)


@app.command("redrive")
@with_options(operator_options)
def redrive_letters(
    operator: Operator,
    batch: Annotated[str | None, typer.Option(metavar="BATCH_ID", help="Only the letters of this batch.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only the letters of this account.")] = None,
) -> None:
    """Send dead letters again, all of their tries anew. Do it when their receiver works again."""
    with operator:
        from nightshift.accounts import store as accounts
        from nightshift.webhooks import queue

        account_id = accounts.find(account).id if account else None
        others, redriven = [], 0
        # All are read first: one that fails again at once would come round again.
        for letter in queue.dead_letters():
            if batch in (None, letter.event.batch_id) and account_id in (None, letter.event.account_id):
                queue.redrive(letter)
                redriven += 1
            else:
                others.append(letter)
        queue.give_back(others)
    typer.echo(f"Dead letters sent again: {redriven}.")
