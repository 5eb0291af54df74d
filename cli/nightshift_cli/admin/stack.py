"""The stack that `nightshift admin` operates: the options that name it, and its tables for the package."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin import journal
from nightshift_cli.connection import Local, read_stack
from nightshift_cli.errors import CliError

# The settings that the package's stores read, and the stack's outputs that have them.
OUTPUTS = {
    "ACCOUNTS_TABLE": "AccountsTable",
    "BATCHES_TABLE": "BatchesTable",
    "FILES_TABLE": "FilesTable",
    "IDEMPOTENCY_KEYS_TABLE": "IdempotencyKeysTable",
    "BUCKET": "BucketName",
    "ROUTES_TABLE": "RoutesTable",
    "ROUTE_STATE_TABLE": "RouteStateTable",
    "STATE_MACHINE": "StateMachineArn",
    "WEBHOOK_QUEUE_URL": "WebhookQueueUrl",
    "WEBHOOK_DEAD_LETTERS_URL": "WebhookDeadLettersUrl",
}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StackName = Annotated[str, typer.Option(help="The CloudFormation stack.")]
Region = Annotated[str | None, typer.Option(help="The stack's AWS region. Default: the configured one.")]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The chosen stack: its name, its outputs, the address of its API, and what its journal has of the command."""

    stack_name: str
    outputs: dict[str, str]
    base_url: str
    entry: journal.Entry = field(default_factory=lambda: journal.Entry("", None))


# A block in which the package's functions work on the tables of the chosen stack.
Operator = AbstractContextManager[Deployment]


def operator_options(
    context: typer.Context = None,  # type: ignore[assignment]  # Typer gives it
    stack_name: StackName = "nightshift",
    region: Region = None,
    local: Local = False,
) -> Operator:
    """The options of every command here."""
    return _stack_tables(stack_name, region, local, journal.change(context))


def stack_outputs(stack_name: str) -> dict[str, str]:
    """The outputs of a CloudFormation stack, such as ``AccountsTable``."""
    import boto3

    found = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


@contextmanager
def _stack_tables(
    stack_name: str, region: str | None, local: bool, change: dict[str, str] | None
) -> Iterator[Deployment]:
    """Point the package at the stack's tables, and turn its errors and those of AWS into a ``CliError``.

    A ``change`` is recorded before it is made, and an error after it.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from nightshift.core.errors import NightshiftError

    stack = read_stack() if local else {}
    if local:
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
        for variable, name in OUTPUTS.items():
            if name not in outputs:
                raise CliError(f"The stack {stack_name} has no output {name}. It is not a complete Nightshift stack.")
            os.environ[variable] = outputs[name]
        entry = journal.Entry(outputs["LogGroupName"], change)
        entry.begin()
        base_url = stack["base_url"] if local else outputs.get("BaseUrl", "")
        with _error_recorded(entry):
            yield Deployment(stack_name, outputs, base_url, entry)
    except NightshiftError as error:
        raise CliError(error.message) from None
    except (BotoCoreError, ClientError) as error:
        raise CliError(f"AWS: {error}") from None


@contextmanager
def _error_recorded(entry: journal.Entry) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        entry.add(error=str(error) or type(error).__name__)
        raise


def account_names() -> dict[str, str]:
    """The name of each account, by its id."""
    from nightshift.accounts import store as accounts

    return {account.id: account.name for account in accounts.list_accounts()}


def print_table(head: tuple[str, ...], rows: Sequence[Sequence[object]], as_json: bool = False) -> None:
    """The rows below the head, or as a JSON array of objects whose fields are named as the columns."""
    if as_json:
        typer.echo(show.as_json(records(head, rows)))
        return
    for line in show.table([head, *rows]):
        typer.echo(line)


def print_outcome(outcome: object, words: str, as_json: bool) -> None:
    """What a command did: the words, or JSON with the words beside it on stderr."""
    if as_json:
        typer.echo(show.as_json(outcome))
    typer.echo(show.plain(words), err=as_json)


def records(head: tuple[str, ...], rows: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    """Each row as an object whose fields are named as the columns."""
    names = [name.lower().replace(" ", "_").replace("'", "") for name in head]
    return [dict(zip(names, row, strict=True)) for row in rows]
