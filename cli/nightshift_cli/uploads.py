"""How a file gets to the API: in one call when it is small, otherwise in parts, from where an earlier run stopped."""

import hashlib
import time
from pathlib import Path
from typing import Any

from nightshift_cli.bookmarks import Bookmark, Identity, Part, Shelf
from nightshift_cli.client import Client
from nightshift_cli.errors import ApiError, CliError, UnreachableError
from nightshift_cli.progress import UploadProgress

# One call takes about 4.5 MB.
PART_BYTES = 4 * 1024 * 1024


def upload(client: Client, source: Path, progress: UploadProgress) -> str:
    """Upload the file and return its id."""
    size = source.stat().st_size
    progress.say(f"Uploading {source.name} ({size:,} bytes).")
    file = client.upload(source) if size <= PART_BYTES else _upload_in_parts(client, source, progress)
    file_id: str = file["id"]
    return file_id


def _upload_in_parts(client: Client, source: Path, progress: UploadProgress) -> dict[str, Any]:
    shelf = Shelf(client.base_url, source)
    shelf.tidy()
    with source.open("rb") as content:
        identity = Identity.of(content.fileno())
    earlier = shelf.find(identity)
    if earlier:
        progress.say(f"Going on with an earlier upload: {len(earlier.parts)} parts were sent.")
        try:
            return _go_on(client, source, earlier, shelf, progress)
        except ApiError as error:
            if not _is_dead(error):
                raise
            progress.say(f"The earlier upload is of no use any more: {error} Starting anew.")
    begun = client.create_upload(source.name, identity.size, notice=progress.say)
    # By this machine's clock, which need not be right.
    expires_at = time.time() + begun["expires_at"] - begun["created_at"]
    bookmark = Bookmark(str(source), identity, begun["id"], expires_at)
    shelf.keep(bookmark)
    return _go_on(client, source, bookmark, shelf, progress)


def _go_on(client: Client, source: Path, bookmark: Bookmark, shelf: Shelf, progress: UploadProgress) -> dict[str, Any]:
    """Send what is missing, and complete the upload."""
    try:
        file = _send(client, source, bookmark, shelf, progress)
    except (UnreachableError, ApiError) as error:
        if isinstance(error, ApiError) and _is_dead(error):
            shelf.forget()
        else:
            error.notes.append("Run the same command again within the hour: what was sent is not sent again.")
        raise
    shelf.forget()
    return file


def _send(client: Client, source: Path, bookmark: Bookmark, shelf: Shelf, progress: UploadProgress) -> dict[str, Any]:
    whole = hashlib.md5(usedforsecurity=False)
    size = bookmark.file.size
    number = 0
    with source.open("rb") as content:
        while block := content.read(PART_BYTES):
            whole.update(block)
            md5 = hashlib.md5(block, usedforsecurity=False).hexdigest()
            if [part.md5 for part in bookmark.parts[number : number + 1]] != [md5]:
                _require_unchanged(content.fileno(), source, bookmark, shelf)
                # Size and time were the same, but the bytes are not: from here on everything is sent again.
                del bookmark.parts[number:]
                progress.sent(content.tell() - len(block), size)
                bookmark.parts.append(Part(client.add_part(bookmark.upload_id, block, notice=progress.say), md5))
                shelf.keep(bookmark)
            number += 1
        _require_unchanged(content.fileno(), source, bookmark, shelf)
    progress.sent(size, size)
    part_ids = [part.id for part in bookmark.parts]
    return client.complete_upload(bookmark.upload_id, part_ids, whole.hexdigest(), notice=progress.say)


def _require_unchanged(descriptor: int, source: Path, bookmark: Bookmark, shelf: Shelf) -> None:
    if Identity.of(descriptor) != bookmark.file:
        shelf.forget()
        raise CliError(f"{source} changed while it was uploaded. Run the command again.")


def _is_dead(error: ApiError) -> bool:
    """Whether the API will not take this upload however it is gone on with: it is expired, unknown, or not the same."""
    return error.status in (400, 404)
