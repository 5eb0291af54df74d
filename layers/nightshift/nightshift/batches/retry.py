"""A new batch of those lines of an ended batch that failed."""

import hashlib
import time
from collections.abc import Iterator
from tempfile import TemporaryFile

from nightshift.batches import create
from nightshift.batches import store as batches
from nightshift.batches.create import NewBatch
from nightshift.batches.record import Batch
from nightshift.batches.status import TERMINAL
from nightshift.core import settings
from nightshift.core.errors import BadRequestError, ConflictError, NightshiftError, NotFoundError
from nightshift.files import create as new_files
from nightshift.files import store as files
from nightshift.files.create import NewFile
from nightshift.files.record import File
from nightshift.input.lines import failed_lines, lines_of

# How long the new input lives, as output files do.
INPUT_SECONDS = 30 * 24 * 3600
MAX_METADATA = 16


def retry(account_id: str, batch_id: str, idempotency_key: str | None = None) -> Batch:
    """Make a batch of the failed lines of another, in the order of the input, or find the one that the key has made.

    It has a new input file with these lines, locks a route of its own, and takes the other settings of the first.

    Raises:
        NotFoundError: there is no such batch.
        BadRequestError: ``nothing_to_retry``, or what ``create.record`` raises.
        ConflictError: ``batch_not_ended``, ``input_file_gone``, ``error_file_gone`` or ``idempotency_key_reused``.
    """
    began = time.monotonic()
    first = batches.get(account_id, batch_id)
    digest = hashlib.sha256(f"retry {batch_id}".encode()).hexdigest()
    new_id, existing = create.find_by_key(account_id, idempotency_key)
    if existing is not None:
        return create.started(existing, digest)
    file = _write_input(first)
    seconds = settings.sync_validation_seconds() - (time.monotonic() - began)
    try:
        batch = create.record(account_id, new_id, _settings(first, file), digest, seconds, retry_of=batch_id)
    except NightshiftError:
        # No other error says that there is no batch.
        _delete(file)
        raise
    if batch.input_file_id != file.id:
        # Another call with the same key made the batch first, with a file of its own.
        _delete(file)
    return batch


def _settings(first: Batch, file: File) -> NewBatch:
    metadata = (first.metadata or {}) | {"retry_of": first.id}
    return NewBatch(
        input_file_id=file.id,
        endpoint=first.endpoint,
        completion_window=first.completion_window,
        callback_url=first.callback_url,
        # A caller who has used up all pairs finds the link in the field alone.
        metadata=metadata if len(metadata) <= MAX_METADATA else first.metadata,
        output_expires_seconds=first.output_expires_seconds,
    )


def _write_input(first: Batch) -> File:
    """The new input file. Its lines go through the disk, because they may be as many and as long as the first's."""
    if first.status not in TERMINAL:
        message = f"The batch {first.id} is {first.status}: its lines can be retried when it has ended."
        raise ConflictError(message, code="batch_not_ended", param="batch_id")
    if first.error_file_id is None:
        message = f"The batch {first.id} has no failed lines: its error_file_id is null."
        raise BadRequestError(message, code="nothing_to_retry", param="batch_id")
    source = _lines(first, first.input_file_id, "input")
    errors = _lines(first, first.error_file_id, "error")
    with TemporaryFile() as lines:
        for line in failed_lines(source, errors):
            lines.write(line + b"\n")
        size = lines.tell()
        lines.seek(0)
        new = NewFile(filename=f"{first.id}_retry.jsonl", purpose="batch", expires_seconds=INPUT_SECONDS)
        return new_files.create_from(first.account_id, new, lines, size)


def _lines(first: Batch, file_id: str, kind: str) -> Iterator[bytes]:
    """The lines of the batch's ``input`` or ``error`` file."""
    try:
        file = files.get(first.account_id, file_id)
        yield from lines_of(files.read_blocks(file.account_id, file.id, file.size))
    except NotFoundError:
        message = f"The {kind} file of the batch {first.id} was deleted or has expired, so no line can be sent again."
        raise ConflictError(message, code=f"{kind}_file_gone", param="batch_id") from None


def _delete(file: File) -> None:
    """Delete the input of a batch that was not made."""
    try:
        files.delete(file.account_id, file.id)
    except NightshiftError:
        return
