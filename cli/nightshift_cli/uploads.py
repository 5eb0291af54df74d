"""Upload a file to the API: a small one in one call, a larger one in parts that a later run can resume."""

import hashlib
import time
from pathlib import Path

from nightshift_cli.bookmarks import Bookmark, BookmarkFile, FileVersion, Part
from nightshift_cli.client import Client
from nightshift_cli.errors import ApiError, CliError, UnreachableError
from nightshift_cli.progress import UploadProgress
from nightshift_cli.resources import File

# One call accepts about 4.5 MB.
PART_BYTES = 4 * 1024 * 1024


def upload(client: Client, source: Path, progress: UploadProgress) -> str:
    """Upload the file and return its id."""
    size = source.stat().st_size
    progress.say(f"Uploading {source.name} ({size:,} bytes).")
    file = client.upload(source) if size <= PART_BYTES else _PartedUpload(client, source, progress).run()
    return file["id"]


class _PartedUpload:
    def __init__(self, client: Client, source: Path, progress: UploadProgress) -> None:
        self._client = client
        self._source = source
        self._progress = progress
        self._bookmark_file = BookmarkFile(client.base_url, source)

    def run(self) -> File:
        """Resume an earlier upload of the file if there is one, otherwise start one."""
        self._bookmark_file.delete_expired()
        with self._source.open("rb") as content:
            version = FileVersion.of(content.fileno())
        earlier = self._bookmark_file.find(version)
        if earlier:
            self._progress.say(f"Resuming an earlier upload: {len(earlier.parts)} parts were already sent.")
            try:
                return self._finish(earlier)
            except ApiError as error:
                if not _is_lost(error):
                    raise
                self._progress.say(f"The earlier upload can no longer be resumed: {error} Starting over.")
        return self._finish(self._start(version))

    def _start(self, version: FileVersion) -> Bookmark:
        created = self._client.create_upload(self._source.name, version.size, notice=self._progress.say)
        # The difference of the two, because the clock of this machine may be wrong.
        expires_at = time.time() + created["expires_at"] - created["created_at"]
        bookmark = Bookmark(str(self._source), version, created["id"], expires_at)
        self._bookmark_file.save(bookmark)
        return bookmark

    def _finish(self, bookmark: Bookmark) -> File:
        """Send the missing parts, and complete the upload."""
        try:
            file = self._send(bookmark)
        except (UnreachableError, ApiError) as error:
            if isinstance(error, ApiError) and _is_lost(error):
                self._bookmark_file.delete()
            else:
                error.notes.append(
                    "Run the same command again within an hour: parts that were sent are not sent again."
                )
            raise
        self._bookmark_file.delete()
        return file

    def _send(self, bookmark: Bookmark) -> File:
        whole = hashlib.md5(usedforsecurity=False)
        size = bookmark.file.size
        number = 0
        with self._source.open("rb") as content:
            while block := content.read(PART_BYTES):
                whole.update(block)
                md5 = hashlib.md5(block, usedforsecurity=False).hexdigest()
                if [part.md5 for part in bookmark.parts[number : number + 1]] != [md5]:
                    self._require_unchanged(content.fileno(), bookmark)
                    # A part may differ although size and time are the same. It and the parts after it are sent again.
                    del bookmark.parts[number:]
                    self._progress.sent(content.tell() - len(block), size)
                    part_id = self._client.add_part(bookmark.upload_id, block, notice=self._progress.say)
                    bookmark.parts.append(Part(part_id, md5))
                    self._bookmark_file.save(bookmark)
                number += 1
            self._require_unchanged(content.fileno(), bookmark)
        self._progress.sent(size, size)
        part_ids = [part.id for part in bookmark.parts]
        return self._client.complete_upload(bookmark.upload_id, part_ids, whole.hexdigest(), notice=self._progress.say)

    def _require_unchanged(self, descriptor: int, bookmark: Bookmark) -> None:
        if FileVersion.of(descriptor) != bookmark.file:
            self._bookmark_file.delete()
            raise CliError(f"{self._source} changed while it was uploaded. Run the command again.")


def _is_lost(error: ApiError) -> bool:
    """Whether the upload cannot be continued, because it is expired, unknown or different."""
    return error.status in (400, 404)
