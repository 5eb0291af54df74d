"""`nightshift admin accounts`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_outcome, print_table, records
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.accounts.record import Account
    from nightshift.accounts.spend import Spend

app = typer.Typer(help="Accounts, their quotas and weights; who may use the API.", no_args_is_help=True)

_HEAD = ("ID", "NAME", "WEIGHT", "STATE", "CREATED")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")]


def _new_name(text: str) -> str:
    """A name that lines of a table can show, and that other commands can be given."""
    if not text.isprintable() or text != text.strip() or not 1 <= len(text) <= 100:
        raise typer.BadParameter("must have 1 to 100 printable characters, without a space around them")
    return text


NewName = Annotated[str, typer.Argument(metavar="NAME", parser=_new_name)]


@app.command("create")
@with_options(operator_options)
def create_account(operator: Operator, name: NewName, as_json: AsJson = False) -> None:
    """Create an account and print its id."""
    with operator:
        from nightshift.accounts import store as accounts

        # The other commands find an account by its name, so the name has to be unique.
        if any(name in (account.id, account.name) for account in accounts.list_accounts()):
            raise CliError(f"An account named {name} already exists.")
        account_id = accounts.create_account(name)
    typer.echo(show.as_json({"id": account_id, "name": name}) if as_json else account_id)


@app.command("list")
@with_options(operator_options)
def list_accounts(operator: Operator, as_json: AsJson = False) -> None:
    """List every account."""
    with operator:
        from nightshift.accounts import store as accounts

        found = accounts.list_accounts()
    print_table(_HEAD, [_row(one) for one in found], as_json)


@app.command("disable")
@with_options(operator_options)
def disable_account(
    operator: Operator,
    name: Name,
    keep_batches: Annotated[
        bool, typer.Option("--keep-batches", help="Let its open batches run to their ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let no key of an account work, and cancel its open batches."""
    with operator:
        from nightshift.accounts import store as accounts
        from nightshift.batches import store as batches
        from nightshift.batches.cancel import cancel

        account = accounts.find(name)
        accounts.disable(account.id)
        words = f"{show.plain(name)} is disabled. Its keys stop working within {accounts.KEY_CACHE_SECONDS} seconds."
        typer.echo(words, err=as_json)
        cancelled = []
        if not keep_batches:
            cancelled = [cancel(account.id, batch.id).id for batch in batches.open_of(account.id)]
            words = f"Batches cancelled: {len(cancelled)}. Requests in flight may still be answered and paid."
            typer.echo(words, err=as_json)
    if as_json:
        typer.echo(show.as_json(_record(account, disabled_at=int(time.time())) | {"cancelled": cancelled}))


@app.command("enable")
@with_options(operator_options)
def enable_account(operator: Operator, name: Name, as_json: AsJson = False) -> None:
    """Let the keys of a disabled account work again."""
    with operator:
        from nightshift.accounts import store as accounts

        account = accounts.find(name)
        accounts.enable(account.id)
    print_outcome(_record(account, disabled_at=None), f"{name} is enabled.", as_json)


@app.command("quotas")
@with_options(operator_options)
def account_quotas(
    operator: Operator,
    name: Name,
    active_batches: Annotated[int | None, typer.Option(min=0, help="Batches that have not ended.")] = None,
    queued_requests: Annotated[int | None, typer.Option(min=0, help="Lines of batches that have not ended.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes of all its files.")] = None,
    dollars_a_day: Annotated[float | None, typer.Option(min=0, help="At the routes' prices; days in UTC.")] = None,
    dollars_a_month: Annotated[float | None, typer.Option(min=0, help="At the routes' prices; in UTC.")] = None,
    reset: Annotated[list[str] | None, typer.Option(metavar="LIMIT", help="Back to its default. May repeat.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the quotas of an account, and what it has spent. Each option changes one of them first.

    An account that has spent its dollars sends no more requests: its batches wait until the next day, the next month
    or a higher limit, and expire at their deadlines. Requests in flight are still answered and paid.
    """
    given: dict[str, float | None] = {
        "active_batches": active_batches,
        "queued_requests": queued_requests,
        "stored_bytes": stored_bytes,
        "dollars_a_day": dollars_a_day,
        "dollars_a_month": dollars_a_month,
    }
    resets = {limit.replace("-", "_") for limit in reset or []}
    if unknown := resets - given.keys():
        known = ", ".join(limit.replace("_", "-") for limit in given)
        raise CliError(f"There is no limit {min(unknown).replace('_', '-')}. There are: {known}.")
    with operator:
        import msgspec
        from nightshift.accounts import spend as spends
        from nightshift.accounts import store as accounts
        from nightshift.accounts.quotas import Quotas
        from nightshift.batches import charges

        account = accounts.find(name)
        # Only limits that were set for this account are stored. The others follow the defaults.
        own = {limit: value for limit, value in account.own_quotas.items() if limit not in resets}
        own |= {limit: value for limit, value in given.items() if value is not None}
        if own != account.own_quotas:
            _set_quotas(account.id, own)
        limits = msgspec.convert(own, Quotas)
        spend = charges.spent(account.id)
        used = _used(account.id, spend)
    rows = [
        (limit.replace("_", "-"), value, "account" if limit in own else "default", used[limit])
        for limit, value in msgspec.to_builtins(limits).items()
    ]
    print_table(("LIMIT", "VALUE", "SET BY", "USED"), rows, as_json)
    if reached := spends.reached(limits, spend):
        typer.echo(f"It has spent {reached}, so its batches wait.", err=True)


def _used(account_id: str, spend: "Spend") -> dict[str, float]:
    """What the account has of each limit."""
    from nightshift.accounts.spend import DOLLAR
    from nightshift.batches import quota
    from nightshift.files import store as files

    active, queued = quota.used(account_id)
    return {
        "active_batches": active,
        "queued_requests": queued,
        "stored_bytes": files.stored_bytes(account_id),
        "dollars_a_day": spend.day / DOLLAR,
        "dollars_a_month": spend.month / DOLLAR,
    }


def _set_quotas(account_id: str, quotas: dict[str, float]) -> None:
    """Set the quotas, and wake the batches that may wait for a higher limit."""
    from nightshift.accounts import store as accounts
    from nightshift.batches import executions
    from nightshift.batches import store as batches

    accounts.set_quotas(account_id, quotas)
    for batch in batches.open_of(account_id):
        executions.wake_parked(account_id, batch.id)


@app.command("set")
@with_options(operator_options)
def set_account(
    operator: Operator,
    name: Name,
    weight: Annotated[int, typer.Option(min=1, max=1000, help="Its part of a route that accounts share.")],
    as_json: AsJson = False,
) -> None:
    """Set the weight of an account: 2 gets twice as much of a busy route as 1."""
    with operator:
        from nightshift.accounts import store as accounts

        account = accounts.find(name)
        accounts.set_weight(account.id, weight)
    words = f"{name} has the weight {weight}. Workers that start from now on use it."
    print_outcome(_record(account, weight=weight), words, as_json)


def _row(one: "Account") -> tuple[object, ...]:
    return one.id, one.name, one.weight, "disabled" if one.disabled_at else "active", show.moment(one.created_at)


def _record(account: "Account", **changed: int | None) -> dict[str, object]:
    """The account as the list has it, with what was ``changed``: a read might not show that yet."""
    import msgspec

    return records(_HEAD, [_row(msgspec.structs.replace(account, **changed))])[0]
