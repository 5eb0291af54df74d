"""Deletion of input files; a file that an open batch reads is kept."""

from nightshift.batches import store as batches
from nightshift.core.errors import ConflictError
from nightshift.files import store as files


def delete_file(account_id: str, file_id: str) -> None:
    """Delete a file that no open batch reads.

    Raises:
        NotFoundError: there is no such file.
        ConflictError: ``file_in_use``.
    """
    files.get(account_id, file_id)
    readers = [batch.id for batch in batches.open_of(account_id) if batch.input_file_id == file_id]
    if readers:
        message = f"The batch {readers[0]} reads this file. Cancel the batch, or wait for it to end."
        raise ConflictError(message, code="file_in_use", param="file_id")
    files.delete(account_id, file_id)
