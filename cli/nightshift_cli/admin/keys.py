"""`nightshift admin keys`."""

from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import Operator, operator_options, print_table
from nightshift_cli.options import with_options

app = typer.Typer(help="The API keys of an account.", no_args_is_help=True)

Account = Annotated[str, typer.Option(metavar="NAME", help="The account's name or id.")]


@app.command("create")
@with_options(operator_options)
def create_key(operator: Operator, account: Account) -> None:
    """Create a key and print it, only this once."""
    with operator:
        from nightshift.accounts import store as accounts

        api_key, key = accounts.create_key(accounts.find(account).id)
    typer.echo(api_key)
    typer.echo(f"{key.id} for {show.plain(account)}. Keep the key now: it cannot be shown again.", err=True)


@app.command("list")
@with_options(operator_options)
def list_keys(operator: Operator, account: Account) -> None:
    """List an account's keys. Of each key only a hint is shown."""
    with operator:
        from nightshift.accounts import store as accounts

        found = accounts.list_keys(accounts.find(account).id)
    print_table(("ID", "KEY", "CREATED"), [(key.id, key.hint, show.moment(key.created_at)) for key in found])


@app.command("revoke")
@with_options(operator_options)
def revoke_key(operator: Operator, key_id: Annotated[str, typer.Argument(metavar="KEY_ID")], account: Account) -> None:
    """Revoke a key of an account."""
    with operator:
        from nightshift.accounts import store as accounts

        accounts.revoke_key(accounts.find(account).id, key_id)
        typer.echo(f"Revoked {key_id}. It stops working within {accounts.KEY_CACHE_SECONDS} seconds.")
