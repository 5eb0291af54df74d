"""`nightshift admin`: accounts, keys and routes, with the package's functions on the tables of a stack."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.connection import Local, read_stack
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.routes.route import Route

HELP = """Operate a stack: its accounts, keys and routes.

\b
Examples:
  nightshift admin routes apply docs/routes.example.yaml
  nightshift admin accounts create my-team
  nightshift admin keys create --account my-team
"""

app = typer.Typer(help=HELP, no_args_is_help=True)
accounts_app = typer.Typer(help="Accounts and their quotas.", no_args_is_help=True)
keys_app = typer.Typer(help="The API keys of an account.", no_args_is_help=True)
routes_app = typer.Typer(help="Which upstream answers which model.", no_args_is_help=True)
app.add_typer(accounts_app, name="accounts")
app.add_typer(keys_app, name="keys")
app.add_typer(routes_app, name="routes")

StackName = Annotated[str, typer.Option(help="The CloudFormation stack.")]
Region = Annotated[str | None, typer.Option(help="The stack's AWS region. Default: the configured one.")]
Account = Annotated[str, typer.Option(metavar="NAME", help="The account's name or id.")]
# A block in which the package's functions work on the tables of the chosen stack.
Operator = AbstractContextManager[None]


def operator_options(stack_name: StackName = "nightshift", region: Region = None, local: Local = False) -> Operator:
    """The options of every command here."""
    return _stack_tables(stack_name, region, local)


@accounts_app.command("create")
@with_options(operator_options)
def create_account(operator: Operator, name: Annotated[str, typer.Argument()]) -> None:
    """Create an account and print its id."""
    with operator:
        from nightshift.accounts import store as accounts

        # The other commands find an account by its name, so the name has to be unique.
        if any(name in (account.id, account.name) for account in accounts.list_accounts()):
            raise CliError(f"An account named {name} already exists.")
        typer.echo(accounts.create_account(name))


@accounts_app.command("list")
@with_options(operator_options)
def list_accounts(operator: Operator) -> None:
    """List every account."""
    with operator:
        from nightshift.accounts import store as accounts

        found = [(one.id, one.name, show.moment(one.created_at)) for one in accounts.list_accounts()]
    _print_table(("ID", "NAME", "CREATED"), found)


@accounts_app.command("quotas")
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
    _print_table(("LIMIT", "VALUE", "SET BY"), rows)


@keys_app.command("create")
@with_options(operator_options)
def create_key(operator: Operator, account: Account) -> None:
    """Create a key and print it, only this once."""
    with operator:
        from nightshift.accounts import store as accounts

        api_key, key = accounts.create_key(accounts.find(account).id)
    typer.echo(api_key)
    typer.echo(f"{key.id} for {show.plain(account)}. Keep the key now: it cannot be shown again.", err=True)


@keys_app.command("list")
@with_options(operator_options)
def list_keys(operator: Operator, account: Account) -> None:
    """List an account's keys. Of each key only a hint is shown."""
    with operator:
        from nightshift.accounts import store as accounts

        found = accounts.list_keys(accounts.find(account).id)
    _print_table(("ID", "KEY", "CREATED"), [(key.id, key.hint, show.moment(key.created_at)) for key in found])


@keys_app.command("revoke")
@with_options(operator_options)
def revoke_key(operator: Operator, key_id: Annotated[str, typer.Argument(metavar="KEY_ID")], account: Account) -> None:
    """Revoke a key of an account."""
    with operator:
        from nightshift.accounts import store as accounts

        accounts.revoke_key(accounts.find(account).id, key_id)
        typer.echo(f"Revoked {key_id}. It stops working within {accounts.KEY_CACHE_SECONDS} seconds.")


@routes_app.command("apply")
@with_options(operator_options)
def apply_routes(
    operator: Operator, file: Annotated[Path, typer.Argument(metavar="FILE.yaml", exists=True, dir_okay=False)]
) -> None:
    """Replace all routes of the models that the file names. Other models keep theirs."""
    given = read_routes(file)
    with operator:
        from nightshift.routes import store as routes

        put, deleted = routes.apply(given)
    typer.echo(f"Routes written: {put}; deleted: {deleted}.")


@routes_app.command("list")
@with_options(operator_options)
def list_routes(operator: Operator) -> None:
    """List every route, those of a model in order of preference."""
    head = ("MODEL", "PROVIDER", "UPSTREAM MODEL", "BASE URL", "BATCH", "SKU", "ACTIVE", "PRIORITY", "WEIGHT", "MAX")
    with operator:
        from nightshift.routes import store as routes

        found = [
            (
                *(one.model, one.provider, one.upstream_model, one.base_url, _yes(one.batch)),
                *(one.sku.id, _yes(one.sku.active), one.priority, one.weight, one.max_concurrency),
            )
            for one in routes.all_routes()
        ]
    _print_table(head, found)


def read_routes(file: Path) -> "list[Route]":
    """The routes in a YAML file.

    Raises:
        CliError: the file is not a list of valid routes. The notes name every wrong entry and its first wrong field.
    """
    import msgspec
    import yaml
    from nightshift.routes import form

    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{file} is not valid YAML.", notes=str(error).splitlines()) from None
    if not isinstance(entries, list) or not entries:
        raise CliError(f"{file} is not a YAML list of routes.")
    found: dict[tuple[str, str, str], Route] = {}
    wrong = []
    for number, entry in enumerate(entries, 1):
        name = f"entry {number}"
        if isinstance(entry, dict) and "model" in entry:
            name += f" (model {entry['model']})"
        try:
            route = form.parse(entry)
        except msgspec.ValidationError as error:
            wrong.append(f"{name}: {error}")
            continue
        identity = (route.model, route.provider, route.sku.id)
        if identity in found:
            wrong.append(f"{name}: an earlier entry has the same model, provider and sku.id")
        found[identity] = route
    if wrong:
        raise CliError(f"{file} has invalid routes. Nothing was changed.", notes=wrong)
    return list(found.values())


def stack_outputs(stack_name: str) -> dict[str, str]:
    """The outputs of a CloudFormation stack, such as ``AccountsTable``."""
    import boto3

    found = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


@contextmanager
def _stack_tables(stack_name: str, region: str | None, local: bool) -> Iterator[None]:
    """Point the package at the stack's tables, and turn its errors and those of AWS into a ``CliError``."""
    from botocore.exceptions import BotoCoreError, ClientError
    from nightshift.core.errors import NightshiftError

    if local:
        stack = read_stack()
        stack_name = stack["stack_name"]
        # Settings for AWS must not reach the emulator, and the emulator's must not reach AWS.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",  # noqa: S106 - the emulator's root user, as in local/settings.py
            AWS_ENDPOINT_URL=stack["aws_endpoint_url"],
            AWS_DEFAULT_REGION=stack["region"],
        )
    elif region:
        os.environ["AWS_DEFAULT_REGION"] = region
    try:
        outputs = stack_outputs(stack_name)
        for variable, name in (("ACCOUNTS_TABLE", "AccountsTable"), ("ROUTES_TABLE", "RoutesTable")):
            if name not in outputs:
                raise CliError(f"The stack {stack_name} has no output {name}. It is not a complete Nightshift stack.")
            os.environ[variable] = outputs[name]
        yield
    except NightshiftError as error:
        raise CliError(error.message) from None
    except (BotoCoreError, ClientError) as error:
        raise CliError(f"AWS: {error}") from None


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _print_table(head: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
    for line in show.table([head, *rows]):
        typer.echo(line)
