"""What a command prints when Ctrl-C or an error ends it early."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from nightshift_cli import show
from nightshift_cli.errors import ApiError, CliError
from nightshift_cli.resources import Batch

INTERRUPTED = 130


@contextmanager
def on_interrupt(message: str) -> Iterator[None]:
    """Print ``message`` and exit if Ctrl-C is pressed in the block."""
    try:
        yield
    except KeyboardInterrupt:
        complain([message])
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def shows_how_to_continue(batch: Batch, output: Path, options: str) -> Iterator[None]:
    """Print the commands that continue with the batch if the block is interrupted or fails."""
    batch_id = show.plain(batch["id"])
    try:
        yield
    except (KeyboardInterrupt, CliError, OSError) as error:
        if isinstance(error, ApiError) and error.status == 401:
            complain(
                [f"The key is no longer accepted. Ask your operator whether {batch_id} goes on, and for a new key."]
            )
            raise
        complain(
            [
                f"Stopped watching {batch_id}, which continues to run. To show it, to cancel it, or to download its "
                "results when it has ended:",
                f"  nightshift status {batch_id}{options}",
                f"  nightshift cancel {batch_id}{options}",
                f"  nightshift download {batch_id} -o {shlex.quote(str(output))}{options}",
            ]
        )
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(INTERRUPTED) from None
        raise


def complain(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)
