"""`nightshift admin`: accounts, keys and routes, by the package's own functions on the stack's own tables."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift_cli import show
from nightshift_cli.connection import read_stack
from nightshift_cli.errors import CliError

if TYPE_CHECKING:
    from nightshift.routes.route import Route

app = typer.Typer(help="Operate a stack: its accounts, keys and routes.", no_args_is_help=True)
accounts_app = typer.Typer(help="Who may use the API.", no_args_is_help=True)
keys_app = typer.Typer(help="The API keys of an account.", no_args_is_help=True)
routes_app = typer.Typer(help="Which upstream answers which model.", no_args_is_help=True)
app.add_typer(accounts_app, name="accounts")
app.add_typer(keys_app, name="keys")
app.add_typer(routes_app, name="routes")

StackName = Annotated[str, typer.Option(help="The CloudFormation stack.")]
Region = Annotated[str | None, typer.Option(help="Its AWS region. Otherwise the one that AWS is configured for.")]
Local = Annotated[bool, typer.Option("--local", help="Use the local stack that `make up` started.")]
Account = Annotated[str, typer.Option(metavar="NAME", help="The account's name or id.")]


@accounts_app.command("create")
def create_account(
    name: Annotated[str, typer.Argument()],
    stack_name: StackName = "nightshift",
    region: Region = None,
    local: Local = False,
) -> None:
    """Create an account and print its id."""
    with _operator(stack_name, region, local):
        from nightshift.accounts import store as accounts

        # Keys are made for an account by its name: a second one would make the name useless.
        if any(name in (account.id, account.name) for account in accounts.list_accounts()):
            raise CliError(f"There is already an account called {name}.")
        typer.echo(accounts.create_account(name))


@accounts_app.command("list")
def list_accounts(stack_name: StackName = "nightshift", region: Region = None, local: Local = False) -> None:
    """List every account."""
    with _operator(stack_name, region, local):
        from nightshift.accounts import store as accounts

        found = [(one.id, one.name, show.moment(one.created_at)) for one in accounts.list_accounts()]
    _print_table(("ID", "NAME", "CREATED"), found)


@accounts_app.command("quotas")
def account_quotas(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")],
    active_batches: Annotated[int | None, typer.Option(min=0, help="Batches that have not ended.")] = None,
    queued_requests: Annotated[int | None, typer.Option(min=0, help="Lines of batches that have not ended.")] = None,
    stored_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes of all its files.")] = None,
    stack_name: StackName = "nightshift",
    region: Region = None,
    local: Local = False,
) -> None:
    """Show what an account may hold at once; with an option, change that limit first."""
    given = {"active_batches": active_batches, "queued_requests": queued_requests, "stored_bytes": stored_bytes}
    changes = {limit: value for limit, value in given.items() if value is not None}
    with _operator(stack_name, region, local):
        import msgspec
        from nightshift.accounts import store as accounts
        from nightshift.accounts.quotas import Quotas

        account = accounts.find(name)
        # Only what was set for this account is written: a limit that it does not have of its own follows the default.
        own = {**account.own_quotas, **changes}
        if changes:
            accounts.set_quotas(account.id, own)
        limits = msgspec.to_builtins(msgspec.convert(own, Quotas))
    rows = [
        (limit.replace("_", "-"), value, "account" if limit in own else "default") for limit, value in limits.items()
    ]
    _print_table(("LIMIT", "VALUE", "SET BY"), rows)


@keys_app.command("create")
def create_key(
    account: Account, stack_name: StackName = "nightshift", region: Region = None, local: Local = False
) -> None:
    """Create a key. It alone goes to stdout, and it is never shown again."""
    with _operator(stack_name, region, local):
        from nightshift.accounts import store as accounts

        api_key, key = accounts.create_key(accounts.find(account).id)
    typer.echo(api_key)
    typer.echo(f"{key.id} for {show.plain(account)}. Keep the key now: it cannot be shown again.", err=True)


@keys_app.command("list")
def list_keys(
    account: Account, stack_name: StackName = "nightshift", region: Region = None, local: Local = False
) -> None:
    """List an account's keys, as hints."""
    with _operator(stack_name, region, local):
        from nightshift.accounts import store as accounts

        found = accounts.list_keys(accounts.find(account).id)
    _print_table(("ID", "KEY", "CREATED"), [(key.id, key.hint, show.moment(key.created_at)) for key in found])


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    account: Account,
    stack_name: StackName = "nightshift",
    region: Region = None,
    local: Local = False,
) -> None:
    """Revoke a key of an account."""
    with _operator(stack_name, region, local):
        from nightshift.accounts import store as accounts

        accounts.revoke_key(accounts.find(account).id, key_id)
        typer.echo(f"Revoked {key_id}. It stops working within {accounts.KEY_CACHE_SECONDS} seconds.")


@routes_app.command("apply")
def apply_routes(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", exists=True, dir_okay=False)],
    stack_name: StackName = "nightshift",
    region: Region = None,
    local: Local = False,
) -> None:
    """Make the file's routes all the routes of the models it names. Other models keep theirs."""
    wanted = read_routes(file)
    with _operator(stack_name, region, local):
        from nightshift.routes import store as routes

        put, deleted = routes.apply(wanted)
    typer.echo(f"Routes put: {put}; deleted: {deleted}.")


@routes_app.command("list")
def list_routes(stack_name: StackName = "nightshift", region: Region = None, local: Local = False) -> None:
    """List every route, in the order in which a model's routes are preferred."""
    head = ("MODEL", "PROVIDER", "UPSTREAM MODEL", "BASE URL", "BATCH", "SKU", "ACTIVE", "PRIORITY", "WEIGHT", "MAX")
    with _operator(stack_name, region, local):
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
        CliError: the file is not a list of routes; the message names every wrong entry and its first wrong field.
    """
    import msgspec
    import yaml
    from nightshift.routes.route import Route

    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{file} is not valid YAML.", notes=str(error).splitlines()) from None
    if not isinstance(entries, list) or not entries:
        raise CliError(f"{file} does not hold a YAML list of routes.")
    found: dict[tuple[str, str, str], Route] = {}
    wrong = []
    for number, entry in enumerate(entries, 1):
        name = f"entry {number}"
        if isinstance(entry, dict) and "model" in entry:
            name += f" (model {entry['model']})"
        try:
            route = msgspec.convert(entry, Route, strict=True)
        except msgspec.ValidationError as error:
            wrong.append(f"{name}: {error}")
            continue
        identity = (route.model, route.provider, route.sku.id)
        if identity in found:
            wrong.append(f"{name}: model, provider and sku.id are those of an earlier entry")
        found[identity] = route
    if wrong:
        raise CliError(f"{file} has wrong routes. Nothing was changed.", notes=wrong)
    return list(found.values())


def stack_outputs(stack_name: str) -> dict[str, str]:
    """The outputs of a CloudFormation stack, such as ``AccountsTable``."""
    import boto3

    found = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


@contextmanager
def _operator(stack_name: str, region: str | None, local: bool) -> Iterator[None]:
    """The package's functions work on the stack's tables in here; what AWS or they refuse is told, not raised."""
    from botocore.exceptions import BotoCoreError, ClientError
    from nightshift.core.errors import NightshiftError

    if local:
        stack = read_stack()
        stack_name = stack["stack_name"]
        # Nothing that is set up for AWS may reach the emulator, nor the other way round.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",  # noqa: S106 - the emulator's root user, as local/stack.py sets it up
            AWS_ENDPOINT_URL=stack["aws_endpoint_url"],
            AWS_DEFAULT_REGION=stack["region"],
        )
    elif region:
        os.environ["AWS_DEFAULT_REGION"] = region
    try:
        outputs = stack_outputs(stack_name)
        for variable, name in (("ACCOUNTS_TABLE", "AccountsTable"), ("ROUTES_TABLE", "RoutesTable")):
            if name not in outputs:
                raise CliError(f"The stack {stack_name} has no output {name}. Is it Nightshift, and wholly deployed?")
            os.environ[variable] = outputs[name]
        yield
    except NightshiftError as error:
        raise CliError(error.message) from None
    except (BotoCoreError, ClientError) as error:
        raise CliError(f"AWS: {error}") from None


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _print_table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    for line in show.table([head, *rows]):
        typer.echo(line)
