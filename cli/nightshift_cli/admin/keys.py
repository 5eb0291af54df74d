"""`nightshift admin keys`."""

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_outcome, print_table, records
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.accounts.record import Account, Key

app = typer.Typer(help="The API keys of an account.", no_args_is_help=True)

_HEAD = ("ID", "KEY", "CREATED", "EXPIRES", "STATE")

AccountName = Annotated[str, typer.Option(metavar="NAME", help="The account's name or id.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID")]
_OVERLAP_SECONDS = 86_400
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,5})([mhd])", text)
    if match is None:
        raise typer.BadParameter("must be a number of minutes, hours or days, such as 90m, 24h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def _lifetime(text: str) -> int:
    if not (seconds := _seconds(text)):
        raise typer.BadParameter("must be more than 0, because the key would be expired at once")
    return seconds


Duration = Annotated[
    int | None, typer.Option(metavar="30d", parser=_seconds, help="Minutes, hours or days: 90m, 24h, 30d.")
]
Lifetime = Annotated[
    int | None, typer.Option(metavar="30d", parser=_lifetime, help="Minutes, hours or days: 90m, 24h, 30d.")
]


@app.command("create")
@with_options(operator_options)
def create_key(operator: Operator, account: AccountName, expires_in: Lifetime = None, as_json: AsJson = False) -> None:
    """Create a key and print it, only this once."""
    with operator:
        from nightshift.accounts import store as accounts

        expires_at = None if expires_in is None else int(time.time()) + expires_in
        found = accounts.find(account)
        api_key, key = accounts.create_key(found.id, expires_at)
    typer.echo(show.as_json(_new_key(api_key, key, found)) if as_json else api_key)
    typer.echo(f"{key.id} for {show.plain(account)}. Keep the key now: it cannot be shown again.", err=True)


@app.command("list")
@with_options(operator_options)
def list_keys(operator: Operator, account: AccountName, as_json: AsJson = False) -> None:
    """List an account's keys. Of each key only a hint is shown."""
    with operator:
        from nightshift.accounts import store as accounts

        found = accounts.list_keys(accounts.find(account).id)
    print_table(_HEAD, [_row(key) for key in found], as_json)


@app.command("rotate")
@with_options(operator_options)
def rotate_key(
    operator: Operator, key_id: KeyId, account: AccountName, overlap: Duration = None, as_json: AsJson = False
) -> None:
    """Create a key in place of another one, which works on for the overlap, by default a day."""
    with operator:
        from nightshift.accounts import store as accounts

        found = accounts.find(account)
        ends_at = int(time.time()) + (_OVERLAP_SECONDS if overlap is None else overlap)
        accounts.expire_key(found.id, key_id, ends_at)
        api_key, key = accounts.create_key(found.id)
    typer.echo(show.as_json(_new_key(api_key, key, found) | {"replaces": key_id}) if as_json else api_key)
    typer.echo(f"{key.id} is in place of {key_id}, which ends at {show.moment(ends_at)} or before.", err=True)
    typer.echo("Keep the key now: it cannot be shown again.", err=True)


@app.command("revoke")
@with_options(operator_options)
def revoke_key(operator: Operator, key_id: KeyId, account: AccountName, as_json: AsJson = False) -> None:
    """Revoke a key of an account."""
    with operator:
        from nightshift.accounts import store as accounts

        found = accounts.find(account)
        accounts.revoke_key(found.id, key_id)
    words = f"Revoked {key_id}. It stops working within {accounts.KEY_CACHE_SECONDS} seconds."
    print_outcome({"id": key_id, "account": found.name}, words, as_json)


def _row(key: "Key") -> tuple[object, ...]:
    expires = show.moment(key.expires_at) if key.expires_at else None
    is_over = key.expires_at is not None and key.expires_at <= time.time()
    return key.id, key.hint, show.moment(key.created_at), expires, "expired" if is_over else "active"


def _new_key(api_key: str, key: "Key", account: "Account") -> dict[str, object]:
    """The key as the list has it, but for the key itself in place of its hint."""
    return records(_HEAD, [_row(key)])[0] | {"key": api_key, "account": account.name}
