"""The command `nightshift`. Modules that take long to import are imported by the command that needs them."""

import errno
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nightshift_cli import admin, show, webhooks
from nightshift_cli.connection import connect
from nightshift_cli.errors import CliError

INTERRUPTED = 130


class Commands(TyperGroup):
    """The one place that turns an error into text and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            complain(error.lines())
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # Nobody reads on: Typer ends the command quietly.
            complain([f"Error: {error}"])
            raise typer.Exit(2) from None


# Without markup, help and usage errors are plain text, and rich is not imported for them.
app = typer.Typer(
    cls=Commands,
    name="nightshift",
    help="Run batches of chat completions, and operate the stack that answers them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(admin.app, name="admin")
app.add_typer(webhooks.app, name="webhooks")

BaseUrl = Annotated[str | None, typer.Option(help="The API, ending in /v1. Otherwise OPENAI_BASE_URL.")]
ApiKey = Annotated[str | None, typer.Option(help="Otherwise OPENAI_API_KEY.")]
Local = Annotated[bool, typer.Option("--local", help="Use the local stack that `make up` started.")]
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID")]
Output = Annotated[
    Path,
    typer.Option(
        *("--output", "-o"),
        metavar="OUTPUT.jsonl",
        help="Answered lines. Failed ones go beside it, with the suffix .errors.jsonl.",
        resolve_path=True,
    ),
]
IsQuiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")]


@app.command()
def run(
    source: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", exists=True, dir_okay=False, resolve_path=True)],
    output: Output,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
    callback_url: Annotated[str | None, typer.Option(help="Gets a signed webhook when the batch has ended.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="At first; polls grow rarer, up to 5 s.")] = 1.0,
    quiet: IsQuiet = False,
) -> None:
    """Run a file of requests as a batch, watch it, and download its results.

    Exit code 0: every line was answered. 1: lines failed, or the batch failed, expired or was cancelled. 2: wrong
    usage, or the API refused. After Ctrl-C (130) the batch goes on. An upload that was stopped goes on where it was
    when the same command is run again within an hour.
    """
    from nightshift_cli import run as job
    from nightshift_cli import uploads
    from nightshift_cli.client import Client
    from nightshift_cli.progress import Bar, Lines, Quiet, UploadBar

    job.check_source(source, output)
    job.check_output(output)
    wanted: dict[str, Any] = {"metadata": _pairs(metadata)} if metadata else {}
    if callback_url:
        wanted["callback_url"] = callback_url
    connection = connect(base_url, api_key, local)
    lines = Quiet() if quiet else Lines()
    bars = sys.stdout.isatty() and not quiet
    with Client(connection) as client:
        with (
            _told_when_stopped(
                "Stopped before a batch was created. The same command again does not send again what was sent in parts."
            ),
            UploadBar() if bars else lines as sending,
        ):
            file_id = uploads.upload(client, source, sending)
        with _told_when_stopped(
            f"Stopped. If the batch was created, `nightshift status{connection.options}` lists it."
        ):
            batch = job.create(client, file_id, wanted, lines)
        batch_id = show.plain(batch["id"])
        try:
            lines.say(f"Created {batch_id}.")
            with Bar() if bars else lines as progress:
                batch = job.watch(client, batch, poll_seconds, progress)
            if batch["status"] != "failed":
                job.collect(client, batch, output, lines)
        except (KeyboardInterrupt, CliError, OSError) as error:
            complain(
                [
                    f"No longer watching {batch_id}; it goes on by itself. To look at it, to cancel it, or to get its "
                    "results when it has ended:",
                    f"  nightshift status {batch_id}{connection.options}",
                    f"  nightshift cancel {batch_id}{connection.options}",
                    f"  nightshift download {batch_id} -o {shlex.quote(str(output))}{connection.options}",
                ]
            )
            if isinstance(error, KeyboardInterrupt):
                raise typer.Exit(INTERRUPTED) from None
            raise
    _end(job.verdict(batch))


@app.command()
def download(
    batch_id: BatchId,
    output: Output,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
    quiet: IsQuiet = False,
) -> None:
    """Download the results of a batch that has ended. Exit codes are those of `nightshift run`."""
    from nightshift_cli import run as job
    from nightshift_cli.client import Client
    from nightshift_cli.progress import Lines, Quiet

    job.check_output(output)
    with Client(connect(base_url, api_key, local)) as client:
        batch = job.fetch(client, batch_id, output, Quiet() if quiet else Lines())
    _end(job.verdict(batch))


@app.command()
def status(
    batch_id: Annotated[str | None, typer.Argument(metavar="BATCH_ID", help="Without one: the newest batches.")] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's object as it is.")] = False,
) -> None:
    """Show a batch, or list the newest ones."""
    from nightshift_cli.client import Client

    with Client(connect(base_url, api_key, local)) as client:
        found = client.batch(batch_id) if batch_id else client.batches()
    if as_json:
        _print_json(found)
    elif batch_id:
        _print(show.batch(found))
    elif found["data"]:
        _print(show.batches(found["data"]))
    else:
        typer.echo("There are no batches yet.")


@app.command()
def cancel(batch_id: BatchId, base_url: BaseUrl = None, api_key: ApiKey = None, local: Local = False) -> None:
    """Cancel a batch. What is answered by then is kept."""
    from nightshift_cli.client import Client

    with Client(connect(base_url, api_key, local)) as client:
        _print(show.batch(client.cancel_batch(batch_id)))


def complain(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)


@contextmanager
def _told_when_stopped(message: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        complain([message])
        raise typer.Exit(INTERRUPTED) from None


def _end(told: list[str]) -> None:
    """Exit with 1 where something has to be told of the batch."""
    if told:
        complain(told)
        raise typer.Exit(1)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = dict(pair.partition("=")[::2] for pair in given)
    if any("=" not in pair for pair in given) or "" in pairs:
        raise typer.BadParameter("must be KEY=VALUE", param_hint="--metadata")
    return pairs


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def _print_json(content: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(content, indent=2))
