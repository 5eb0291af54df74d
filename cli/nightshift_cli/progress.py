"""Progress of an upload and of a batch: a bar on a terminal, plain lines elsewhere, nothing with --quiet.

Progress of an operator's command is a bar on a terminal and nothing elsewhere.
"""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import typer

from nightshift_cli import show
from nightshift_cli.resources import Batch

if TYPE_CHECKING:
    import rich.progress

PLAIN_LINE_SECONDS = 10.0


class UploadProgress(Protocol):
    def __enter__(self) -> "UploadProgress": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def sent(self, done: int, size: int) -> None:
        """``done`` of ``size`` bytes are sent."""

    def say(self, message: str) -> None:
        """Print a line of text beside the progress."""


class Progress(Protocol):
    def __enter__(self) -> "Progress": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, batch: Batch) -> None:
        """Show the current state of the batch."""

    def say(self, message: str) -> None:
        """Print a line of text beside the progress."""


class Quiet:
    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sent(self, done: int, size: int) -> None:
        pass

    def update(self, batch: Batch) -> None:
        pass

    def say(self, message: str) -> None:
        pass


class Lines(Quiet):
    """A line for each new status, and at most one every ten seconds, so that the log of a long batch stays short."""

    def __init__(self) -> None:
        self._status = ""
        self._line = ""
        self._next = 0.0

    def sent(self, done: int, size: int) -> None:
        now = time.monotonic()
        if done == size or (done and now >= self._next):
            typer.echo(f"Uploaded {done / 1e6:.1f} of {size / 1e6:.1f} MB.")
            self._next = now + PLAIN_LINE_SECONDS

    def update(self, batch: Batch) -> None:
        line = ": ".join(part for part in (show.plain(batch["status"]), show.counts(batch)) if part)
        now = time.monotonic()
        if batch["status"] != self._status or (line != self._line and now >= self._next):
            typer.echo(line)
            self._status, self._line, self._next = batch["status"], line, now + PLAIN_LINE_SECONDS

    def say(self, message: str) -> None:
        typer.echo(message)


class UploadBar:
    """rich's progress bar for bytes. It appears with the first part, so a small file has none."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        status = TextColumn("{task.description}", markup=False)
        self._bar = Progress(status, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._task: TaskID | None = None

    def __enter__(self) -> "UploadBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def sent(self, done: int, size: int) -> None:
        if self._task is None:
            # ``completed`` is set now, so that bytes of an earlier run do not count as speed.
            self._task = self._bar.add_task("uploading", total=size, completed=done)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def say(self, message: str) -> None:
        _print_beside(self._bar, message)


class Bar:
    """rich's progress bar for lines."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        counts = TextColumn("{task.fields[counts]}", markup=False)
        status = TextColumn("{task.description}", markup=False)
        self._bar = Progress(status, BarColumn(), counts, TimeElapsedColumn())
        self._task = self._bar.add_task("starting", total=None, counts="")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, batch: Batch) -> None:
        counted = batch.get("request_counts")
        self._bar.update(
            self._task,
            description=show.plain(batch["status"]),
            # Without a total the bar pulses.
            total=(counted["total"] or None) if counted else None,
            completed=counted["completed"] + counted["failed"] if counted else 0,
            counts=show.counts(batch),
        )

    def say(self, message: str) -> None:
        _print_beside(self._bar, message)


class Steps:
    """What an operator's command does at the moment: a bar on stderr if that is a terminal, nothing elsewhere.

    The bar disappears at the end.

    Example:
        with Steps(total=2) as steps:
            steps.begin("deleting files")
            steps.begin("deleting keys")
    """

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        words = TextColumn("{task.description}", markup=False)
        self._bar = Progress(
            *(BarColumn(), TimeElapsedColumn(), words),
            console=Console(file=sys.stderr),
            transient=True,
            disable=not show.is_terminal(sys.stderr),
        )
        self._task = self._bar.add_task("", total=total)
        self._begun = 0

    def __enter__(self) -> "Steps":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, step: str) -> None:
        """The next step begins; those before it are done."""
        self._bar.update(self._task, completed=self._begun)
        self._begun += 1
        self.describe(step)

    def describe(self, step: str) -> None:
        """Other words for the step that goes on."""
        self._bar.update(self._task, description=show.plain(step))


def _print_beside(bar: "rich.progress.Progress", message: str) -> None:
    """Print the message above the bar. Markup in it has no effect."""
    from rich.text import Text

    bar.console.print(Text(message), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Display:
    """Where a command prints: plain ``lines``, and bars if it runs on a terminal."""

    lines: Lines | Quiet
    has_bars: bool

    @classmethod
    def of(cls, quiet: bool) -> "Display":
        return cls(Quiet() if quiet else Lines(), show.is_terminal(sys.stdout) and not quiet)

    def upload(self) -> UploadProgress:
        return UploadBar() if self.has_bars else self.lines

    def batch(self) -> Progress:
        return Bar() if self.has_bars else self.lines
