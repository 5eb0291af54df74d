"""The steps of `nightshift run`: check the files, create the batch, watch it, download its results."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep, time

import msgspec
import typer
from nightshift.batches.status import TERMINAL
from nightshift.core.surrogates import without_lone_surrogates
from nightshift.input.file_check import MAX_FILE_BYTES
from nightshift.input.line_check import MAX_LINE_BYTES
from nightshift.routes.endpoint import DEFAULT, ENDPOINTS

from nightshift_cli import show
from nightshift_cli.client import WATCH_RETRY_SECONDS, Client
from nightshift_cli.errors import CliError, UnreachableError
from nightshift_cli.progress import Display, Progress
from nightshift_cli.resources import Batch
from nightshift_cli.timeline import timeline

LONGEST_POLL_SECONDS = 5.0
POLL_GROWTH = 1.1


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What the user chose for the batch, beside its input file."""

    endpoint: str = DEFAULT
    callback_url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def body(self, file_id: str) -> dict[str, object]:
        """The body of the call that creates the batch."""
        chosen = {"callback_url": self.callback_url, "metadata": self.metadata}
        required = {"input_file_id": file_id, "endpoint": self.endpoint}
        return required | {name: value for name, value in chosen.items() if value}


def pairs(given: list[str]) -> dict[str, str]:
    """The metadata of options such as ``team=search``."""
    found = dict(pair.partition("=")[::2] for pair in given)
    if any("=" not in pair for pair in given) or "" in found:
        raise typer.BadParameter("must be KEY=VALUE", param_hint="--metadata")
    return found


def errors_path(output: Path) -> Path:
    """The file for failed lines: ``out.errors.jsonl`` beside ``out.jsonl``."""
    return output.with_suffix(".errors.jsonl")


def check_source(source: Path, output: Path) -> None:
    """Check the input file before it is uploaded.

    Raises:
        CliError: the file is too large, or the results would overwrite it.
    """
    size = source.stat().st_size
    if size > MAX_FILE_BYTES:
        raise CliError(
            f"{source} has {size:,} bytes. A batch accepts at most {MAX_FILE_BYTES:,} (200 MB). Split it into several."
        )
    if source in (output, errors_path(output)):
        raise CliError(f"{source} is the input and would be overwritten.")


def endpoint_of(source: Path) -> str:
    """The endpoint of the input's lines: the first one's ``url``. A file without it gets its errors from the API."""
    with source.open("rb") as file:
        line = file.readline(MAX_LINE_BYTES)
    try:
        url = msgspec.json.decode(without_lone_surrogates(line), type=_WithUrl).url
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DEFAULT
    return url if url in ENDPOINTS else DEFAULT


class _WithUrl(msgspec.Struct):
    url: str


def check_output(output: Path) -> None:
    """Check that the results can be written, before the batch costs anything.

    Raises:
        CliError: the results cannot be written.
    """
    if not output.parent.is_dir():
        raise CliError(f"The folder {output.parent} does not exist.")
    for target in (output, errors_path(output)):
        if target.exists() and not target.is_file():
            raise CliError(f"{target} is not a regular file.")


def create(client: Client, file_id: str, settings: BatchSettings, progress: Progress) -> Batch:
    """Create the batch of an uploaded file. Retries after a lost answer create no second batch."""
    body = settings.body(file_id)
    with _says_that_it_may_exist():
        return client.create_batch(body, key=uuid.uuid4().hex, notice=progress.say)


def retry(client: Client, batch_id: str, progress: Progress) -> Batch:
    """Create a batch of the lines that failed in another. Retries after a lost answer create no second batch."""
    with _says_that_it_may_exist():
        return client.retry_batch(batch_id, key=uuid.uuid4().hex, notice=progress.say)


@contextmanager
def _says_that_it_may_exist() -> Iterator[None]:
    try:
        yield
    except UnreachableError as error:
        raise UnreachableError(
            f"{error} The batch may have been created; in that case `nightshift status` lists it."
        ) from None


def watch(client: Client, batch: Batch, poll_seconds: float, progress: Progress) -> Batch:
    """Poll until the batch has ended, at growing intervals, and return the ended batch."""
    progress.update(batch)
    while batch["status"] not in TERMINAL:
        sleep(poll_seconds)
        poll_seconds = max(poll_seconds, min(POLL_GROWTH * poll_seconds, LONGEST_POLL_SECONDS))
        batch = client.batch(batch["id"], retry_seconds=WATCH_RETRY_SECONDS, notice=progress.say)
        progress.update(batch)
    return batch


def status(client: Client, batch_id: str, *, is_watched: bool, as_timeline: bool, as_json: bool) -> list[str]:
    """A batch as lines of text, now or at its end."""
    batch = client.batch(batch_id)
    if is_watched:
        with Display.of(quiet=as_json).batch() as progress:
            batch = watch(client, batch, 1.0, progress)
    if as_timeline:
        visits, deliveries = client.visits(batch_id), client.deliveries(batch_id)
        if as_json:
            return [show.as_json({"batch": batch, "visits": visits, "webhook_deliveries": deliveries})]
        return timeline(batch, visits, deliveries, time())
    return [show.as_json(batch)] if as_json else show.batch(batch)


def fetch(client: Client, batch_id: str, output: Path, progress: Progress) -> Batch:
    """Download the results of a batch that has ended, and return the batch.

    Raises:
        CliError: the batch has not ended.
    """
    batch = client.batch(batch_id)
    if batch["status"] not in TERMINAL:
        state = ": ".join(part for part in (batch["status"], show.counts(batch)) if part)
        raise CliError(f"The batch {batch_id} has not ended yet ({state}). Try again later.")
    if batch["status"] != "failed":
        collect(client, batch, output, progress)
    return batch


def collect(client: Client, batch: Batch, output: Path, progress: Progress) -> None:
    """Download the results, and remove files of an earlier run that have no counterpart in this one."""
    if batch["output_file_id"]:
        client.download(batch["output_file_id"], output, notice=progress.say)
        progress.say(f"Answered lines are in {output}.")
    else:
        output.write_bytes(b"")
        progress.say(f"No line was answered: {output} is empty.")
    failed = errors_path(output)
    if batch["error_file_id"]:
        client.download(batch["error_file_id"], failed, notice=progress.say)
        progress.say(f"Failed lines are in {failed}.")
    else:
        failed.unlink(missing_ok=True)


def problems(batch: Batch) -> list[str]:
    """The problems of an ended batch, as lines of text; empty if every line was answered."""
    counts = batch.get("request_counts")
    if batch["status"] == "failed":
        errors = batch.get("errors")
        return [f"The batch {batch['id']} failed.", *show.file_errors(errors["data"] if errors else [])]
    if batch["status"] != "completed":
        return [f"The batch {batch['id']} ended as {batch['status']} ({show.counts(batch)})."]
    return [f"{counts['failed']} of {counts['total']} lines failed."] if counts and counts["failed"] else []
