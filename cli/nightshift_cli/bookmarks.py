"""Bookmarks of unfinished uploads, in the user's cache directory, so that the same command can resume them."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

import msgspec

# The API deletes an unfinished upload after an hour, so older bookmarks are useless.
LIFETIME_SECONDS = 3600


class FileVersion(msgspec.Struct, frozen=True):
    """Size and time of a file. A change of either means that the file has changed."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, descriptor: int) -> "FileVersion":
        found = os.fstat(descriptor)
        return cls(found.st_size, found.st_mtime_ns)


class Part(msgspec.Struct, frozen=True):
    """A part that the API has stored, and the md5 of its bytes."""

    id: str
    md5: str


class Bookmark(msgspec.Struct):
    """One unfinished upload, with the parts that are stored so far."""

    path: str
    file: FileVersion
    upload_id: str
    expires_at: float
    parts: list[Part] = []


class BookmarkFile:
    """The bookmark of one file at one API. If the cache directory cannot be written, nothing is saved."""

    def __init__(self, base_url: str, source: Path) -> None:
        name = hashlib.sha256(f"{base_url}\n{source}".encode(errors="surrogateescape")).hexdigest()
        self._path = _folder() / f"{name}.json"

    def find(self, file: FileVersion) -> Bookmark | None:
        """The bookmark, if its upload has not expired and the file has not changed."""
        try:
            bookmark = msgspec.json.decode(self._path.read_bytes(), type=Bookmark)
        except (OSError, msgspec.MsgspecError):
            return None
        if bookmark.file == file and time.time() < bookmark.expires_at:
            return bookmark
        self.delete()
        return None

    def save(self, bookmark: Bookmark) -> None:
        partial = self._path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(bookmark))
            partial.replace(self._path)

    def delete(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def delete_expired(self) -> None:
        """Delete the expired bookmarks of all files."""
        with contextlib.suppress(OSError):
            for path in self._path.parent.iterdir():
                if path.stat().st_mtime < time.time() - LIFETIME_SECONDS:
                    path.unlink()


def _folder() -> Path:
    # By the XDG specification a relative XDG_CACHE_HOME is ignored.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if os.path.isabs(cache) else Path(os.path.expanduser("~/.cache"))
    return base / "nightshift" / "uploads"
