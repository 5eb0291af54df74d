"""`nightshift admin accounts`."""

from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import Operator, operator_options, print_table
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

app = typer.Typer(help="Accounts, their quotas and weights.", no_args_is_help=True)


@app.command("create")
@with_options(operator_options)
def create_account(operator: Operator, name: Annotated[str, typer.Argument()]) -> None:
    """Create an account and print its id."""
    with operator:
        from nightshift.accounts import store as accounts

        # The other commands find an account by its name, so the name has to be unique.
        if any(name in (account.id, account.name) for account in accounts.list_accounts()):
            raise CliError(f"An account named {name} already exists.")
        typer.echo(accounts.create_account(name))


@app.command("list")
@with_options(operator_options)
def list_accounts(operator: Operator) -> None:
    """List every account."""
    with operator:
        from nightshift.accounts import store as accounts

        found = [(one.id, one.name, one.weight, show.moment(one.created_at)) for one in accounts.list_accounts()]
    print_table(("ID", "NAME", "WEIGHT", "CREATED"), found)


@app.command("quotas")
@with_options(operator_options)
def account_quotas(
    operator: Operator,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")],
    active_batches: Annotated[int | None, typer.Option(min=0, help="Batches that have not ended.")] = None,
    queued_requests: Annotated[int | None, typer.Option(min=0, help="Lines of batches that have not ended.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes of all its files.")] = None,
) -> None:
    """Show the quotas of an account. Each option changes one of them first."""
    given = {"active_batches": active_batches, "queued_requests": queued_requests, "stored_bytes": stored_bytes}
    changes = {limit: value for limit, value in given.items() if value is not None}
    with operator:
        import msgspec
        from nightshift.accounts import store as accounts
        from nightshift.accounts.quotas import Quotas

        account = accounts.find(name)
        # Only limits that were set for this account are stored. The others follow the defaults.
        own = {**account.own_quotas, **changes}
        if changes:
            accounts.set_quotas(account.id, own)
        limits = msgspec.to_builtins(msgspec.convert(own, Quotas))
    rows = [
        (limit.replace("_", "-"), value, "account" if limit in own else "default") for limit, value in limits.items()
    ]
    print_table(("LIMIT", "VALUE", "SET BY"), rows)


@app.command("set")
@with_options(operator_options)
def set_account(
    operator: Operator,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")],
    weight: Annotated[int, typer.Option(min=1, max=1000, help="Its part of a route that accounts share.")],
) -> None:
    """Set the weight of an account: 2 gets twice as much of a busy route as 1."""
    with operator:
        from nightshift.accounts import store as accounts

        accounts.set_weight(accounts.find(name).id, weight)
    typer.echo(f"{show.plain(name)} has the weight {weight}. Workers that start from now on use it.")
