"""The command `nightshift`. Each command imports slow modules itself, so that `--help` stays fast."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nightshift_cli import admin, show, webhooks
from nightshift_cli.connection import Connection, connect
from nightshift_cli.errors import CliError
from nightshift_cli.interrupts import complain, on_interrupt, shows_how_to_continue
from nightshift_cli.options import with_options
from nightshift_cli.resources import Batch

if TYPE_CHECKING:
    from nightshift_cli.client import Client
    from nightshift_cli.progress import Display
    from nightshift_cli.run import BatchSettings

HELP = """Run batches of requests to models, and operate the stack that answers them.

\b
Examples:
  nightshift run requests.jsonl -o answers.jsonl      upload, wait, download
  nightshift status                                   list the newest batches
  nightshift download batch_… -o answers.jsonl
"""


class Commands(TyperGroup):
    """Turns every error into text and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            complain(error.lines())
            raise typer.Exit(2) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # The reader of a pipe is gone: Typer ends the command quietly.
            complain([f"Error: {error}"])
            raise typer.Exit(2) from None


# Without markup, help and usage errors are plain text, and rich is not imported for them.
app = typer.Typer(
    cls=Commands,
    name="nightshift",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(admin.app, name="admin")
app.add_typer(webhooks.app, name="webhooks")

BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID")]
Output = Annotated[
    Path,
    typer.Option(
        *("--output", "-o"),
        metavar="OUTPUT.jsonl",
        help="For answered lines. Failed lines go beside it, with the suffix .errors.jsonl.",
        resolve_path=True,
    ),
]
IsQuiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print problems only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's object unchanged, and nothing else.")]
RetryFailed = Annotated[
    int, typer.Option(min=0, max=10, metavar="N", help="Run the failed lines again, up to N times.")
]


@app.command()
@with_options(connect)
def run(
    connection: Connection,
    source: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", exists=True, dir_okay=False, resolve_path=True)],
    output: Output,
    callback_url: Annotated[str | None, typer.Option(help="Gets a signed webhook when the batch has ended.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Default: the url of the input's first line.")] = None,
    retry_failed: RetryFailed = 0,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="The first interval; it grows up to 5 s.")] = 1.0,
    quiet: IsQuiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a JSONL file as a batch, and download its results.

    \b
    Examples:
      nightshift run requests.jsonl -o answers.jsonl
      nightshift run requests.jsonl -o answers.jsonl --callback-url https://example.com/hook
      nightshift run requests.jsonl -o answers.jsonl --retry-failed 2

    With --retry-failed, OUTPUT.jsonl has the answers of all runs, and the file beside it the last one's failed lines.

    Exit code 0: every line was answered. 1: lines failed, or the batch failed, expired or was cancelled. 2: wrong
    usage, or the API refused the call. 130: Ctrl-C; a batch that was created continues to run.

    If the upload of a large file is stopped, the same command continues it within an hour.
    """
    from nightshift_cli import retries
    from nightshift_cli import run as job
    from nightshift_cli.client import Client
    from nightshift_cli.progress import Display

    job.check_source(source, output)
    job.check_output(output)
    retries.check_part(source, output)
    settings = job.BatchSettings(endpoint or job.endpoint_of(source), callback_url, job.pairs(metadata or []))
    display = Display.of(quiet or as_json)
    with Client(connection) as client:
        file_id = _upload(client, source, display)
        batch = _create(client, file_id, settings, display, connection.options)
        batch = _watch_and_download(client, batch, output, poll_seconds, display, connection.options)
        for _ in range(retry_failed):
            if not retries.are_due(batch):
                break
            batch = _retry(client, batch, display, connection.options)
            with retries.merged_into(source, output) as part:
                batch = _watch_and_download(client, batch, part, poll_seconds, display, connection.options)
            display.lines.say(f"{output} has the answered lines of all runs now.")
    _end_with(batch, as_json)


def _upload(client: "Client", source: Path, display: "Display") -> str:
    from nightshift_cli import uploads

    stopped = (
        "Stopped before a batch was created. If you run the same command again within an hour, parts that were sent "
        "are not sent again."
    )
    with on_interrupt(stopped), display.upload() as progress:
        return uploads.upload(client, source, progress)


def _create(client: "Client", file_id: str, settings: "BatchSettings", display: "Display", options: str) -> Batch:
    from nightshift_cli import run as job

    with on_interrupt(f"Stopped. If the batch was created, `nightshift status{options}` lists it."):
        return job.create(client, file_id, settings, display.lines)


def _retry(client: "Client", batch: Batch, display: "Display", options: str) -> Batch:
    from nightshift_cli import run as job

    with on_interrupt(f"Stopped. If the batch was created, `nightshift status{options}` lists it."):
        return job.retry(client, batch["id"], display.lines)


def _watch_and_download(
    client: "Client", batch: Batch, output: Path, poll_seconds: float, display: "Display", options: str
) -> Batch:
    from nightshift_cli import run as job

    with shows_how_to_continue(batch, output, options):
        display.lines.say(f"Created {show.plain(batch['id'])}.")
        with display.batch() as progress:
            batch = job.watch(client, batch, poll_seconds, progress)
        if batch["status"] != "failed":
            job.collect(client, batch, output, display.lines)
    return batch


@app.command()
@with_options(connect)
def download(
    connection: Connection, batch_id: BatchId, output: Output, quiet: IsQuiet = False, as_json: AsJson = False
) -> None:
    """Download the results of a batch that has ended.

    \b
    Example:
      nightshift download batch_… -o answers.jsonl

    The exit codes are those of `nightshift run`.
    """
    from nightshift_cli import run as job
    from nightshift_cli.client import Client
    from nightshift_cli.progress import Display

    job.check_output(output)
    with Client(connection) as client:
        batch = job.fetch(client, batch_id, output, Display.of(quiet or as_json).lines)
    _end_with(batch, as_json)


@app.command()
@with_options(connect)
def status(
    connection: Connection,
    batch_id: Annotated[str | None, typer.Argument(metavar="BATCH_ID", help="Default: list the newest.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show its progress until it has ended.")] = False,
    as_timeline: Annotated[bool, typer.Option("--timeline", help="Draw its steps with their times.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a batch, or list the newest ones.

    \b
    Examples:
      nightshift status
      nightshift status batch_… --watch --timeline
      nightshift status batch_… --json
    """
    from nightshift_cli import run as job
    from nightshift_cli.client import Client

    if not batch_id and (watch or as_timeline):
        raise CliError("--watch and --timeline need a BATCH_ID.")
    with Client(connection) as client:
        if batch_id:
            _print(job.status(client, batch_id, is_watched=watch, as_timeline=as_timeline, as_json=as_json))
            return
        page = client.batches()
    if as_json:
        _print([show.as_json(page)])
    else:
        _print(show.batches(page["data"]) if page["data"] else ["There are no batches yet."])


@app.command()
@with_options(connect)
def cancel(connection: Connection, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Cancel a batch. Finished lines are kept.

    \b
    Example:
      nightshift cancel batch_…
    """
    from nightshift_cli.client import Client

    with Client(connection) as client:
        _print_batch(client.cancel_batch(batch_id), as_json)


@app.command()
@with_options(connect)
def retry(connection: Connection, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Create a batch of the lines that failed in a batch that has ended.

    \b
    Example:
      nightshift retry batch_…
    """
    from nightshift_cli import run as job
    from nightshift_cli.client import Client
    from nightshift_cli.progress import Quiet

    with Client(connection) as client:
        _print_batch(job.retry(client, batch_id, Quiet()), as_json)


@app.command()
@with_options(connect)
def console(
    connection: Connection,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
) -> None:
    """Open the console in the browser, signed in.

    \b
    Examples:
      nightshift console
      nightshift console --local
    """
    from nightshift_cli import console as page

    if no_browser:
        _print([page.address(connection)])
    elif page.open_signed_in(connection):
        _print([f"Opened {page.address(connection)}."])
    else:
        raise CliError(f"No browser opened the console. Open {page.address(connection)} and sign in with your key.")


def _end_with(batch: Batch, as_json: bool) -> None:
    """Print the problems of an ended batch and exit with 1, if there are any."""
    from nightshift_cli import run as job

    if as_json:
        _print_batch(batch, as_json)
    if problems := job.problems(batch):
        complain(problems)
        raise typer.Exit(1)


def _print_batch(batch: Batch, as_json: bool) -> None:
    _print([show.as_json(batch)] if as_json else show.batch(batch))


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
