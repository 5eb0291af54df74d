"""`nightshift run`: a file goes up, a batch runs, its answers come down."""

import uuid
from pathlib import Path
from time import sleep
from typing import Any

from nightshift.batches.status import TERMINAL
from nightshift.input.file_check import MAX_FILE_BYTES

from nightshift_cli import show
from nightshift_cli.client import WATCHING, Client
from nightshift_cli.errors import CliError, UnreachableError
from nightshift_cli.progress import Progress

LONGEST_POLL_SECONDS = 5.0
GROWTH = 1.1


def errors_path(output: Path) -> Path:
    """Where the failed lines go: ``out.errors.jsonl`` beside ``out.jsonl``."""
    return output.with_suffix(".errors.jsonl")


def check_source(source: Path, output: Path) -> None:
    """Refuse what the API would refuse only after the whole file has been sent.

    Raises:
        CliError: the file is too big, or the results would overwrite it.
    """
    size = source.stat().st_size
    if size > MAX_FILE_BYTES:
        raise CliError(
            f"{source} has {size:,} bytes; a batch takes at most {MAX_FILE_BYTES:,} (200 MB). Split it into several."
        )
    if source in (output, errors_path(output)):
        raise CliError(f"{source} is the input and would be overwritten.")


def check_output(output: Path) -> None:
    """What would be found out only when the answers are there, found out before they cost anything.

    Raises:
        CliError: the results cannot be written.
    """
    if not output.parent.is_dir():
        raise CliError(f"The folder {output.parent} does not exist.")
    for target in (output, errors_path(output)):
        if target.exists() and not target.is_file():
            raise CliError(f"{target} is not a regular file.")


def create(client: Client, file_id: str, wanted: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Create the batch of an uploaded file. A lost answer is asked for again, without making a second batch."""
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", **wanted}
    try:
        return client.create_batch(body, key=uuid.uuid4().hex, notice=progress.say)
    except UnreachableError as error:
        raise UnreachableError(
            f"{error} The batch may have been created all the same: see `nightshift status`."
        ) from None


def watch(client: Client, batch: dict[str, Any], poll_seconds: float, progress: Progress) -> dict[str, Any]:
    """Poll until the batch has ended, ever less often, and return it as it is then."""
    progress.update(batch)
    while batch["status"] not in TERMINAL:
        sleep(poll_seconds)
        poll_seconds = max(poll_seconds, min(GROWTH * poll_seconds, LONGEST_POLL_SECONDS))
        batch = client.batch(batch["id"], patience=WATCHING, notice=progress.say)
        progress.update(batch)
    return batch


def fetch(client: Client, batch_id: str, output: Path, progress: Progress) -> dict[str, Any]:
    """Download the results of a batch that has ended, and return the batch.

    Raises:
        CliError: it has not.
    """
    batch = client.batch(batch_id)
    if batch["status"] not in TERMINAL:
        so_far = ": ".join(part for part in (batch["status"], show.counts(batch)) if part)
        raise CliError(f"The batch {batch_id} has not ended yet ({so_far}). Try again later.")
    if batch["status"] != "failed":
        collect(client, batch, output, progress)
    return batch


def collect(client: Client, batch: dict[str, Any], output: Path, progress: Progress) -> None:
    """Download what the batch came to. Files of an earlier run never stay beside those of this one."""
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


def verdict(batch: dict[str, Any]) -> list[str]:
    """What the user has to be told about a batch that ended badly; empty where every line was answered."""
    status = batch["status"]
    failed = (batch.get("request_counts") or {}).get("failed", 0)
    if status == "failed":
        entries = (batch.get("errors") or {}).get("data") or []
        return [f"The batch {batch['id']} failed.", *show.file_errors(entries)]
    if status != "completed":
        return [f"The batch {batch['id']} ended as {status} ({show.counts(batch)})."]
    return [f"{failed} of {batch['request_counts']['total']} lines failed."] if failed else []
