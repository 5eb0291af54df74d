"""`nightshift run`: a file goes up, a batch runs, its answers come down."""

from pathlib import Path
from time import sleep
from typing import Any

from nightshift.status import TERMINAL

from nightshift_cli import show
from nightshift_cli.client import WATCHING, Client
from nightshift_cli.errors import CliError, UnreachableError
from nightshift_cli.progress import Progress

LONGEST_POLL_SECONDS = 5.0
GROWTH = 1.1


def errors_path(output: Path) -> Path:
    """Where the failed lines go: ``out.errors.jsonl`` beside ``out.jsonl``."""
    return output.with_suffix(".errors.jsonl")


def check_paths(source: Path, output: Path) -> None:
    """What would be found out only when the answers are there, found out before they cost anything.

    Raises:
        CliError: the results cannot be written.
    """
    if not output.parent.is_dir():
        raise CliError(f"The folder {output.parent} does not exist.")
    for target in (output, errors_path(output)):
        if target == source:
            raise CliError(f"{target} is the input and would be overwritten.")
        if target.exists() and not target.is_file():
            raise CliError(f"{target} is not a regular file.")


def submit(client: Client, source: Path, wanted: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Upload the file and create its batch."""
    progress.say(f"Uploading {source.name} ({source.stat().st_size:,} bytes).")
    file_id = client.upload(source)["id"]
    try:
        return client.create_batch(input_file_id=file_id, endpoint="/v1/chat/completions", **wanted)
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
