"""How far an upload has come, kept in the user's cache directory until the upload is whole."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

import msgspec

# The API forgets an upload after an hour; what is older than that in the folder is of no use.
LIFETIME_SECONDS = 3600


class Identity(msgspec.Struct, frozen=True):
    """What tells that a file is still the one that was begun with."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, descriptor: int) -> "Identity":
        found = os.fstat(descriptor)
        return cls(found.st_size, found.st_mtime_ns)


class Part(msgspec.Struct, frozen=True):
    """A part that the API has, and the md5 of its bytes."""

    id: str
    md5: str


class Bookmark(msgspec.Struct):
    """One upload that has begun."""

    path: str
    file: Identity
    upload_id: str
    expires_at: float
    parts: list[Part] = []


class Shelf:
    """The one place for the bookmark of a file, for one API. Where it cannot be written, nothing is remembered."""

    def __init__(self, base_url: str, source: Path) -> None:
        name = hashlib.sha256(f"{base_url}\n{source}".encode(errors="surrogateescape")).hexdigest()
        self._path = _folder() / f"{name}.json"

    def find(self, file: Identity) -> Bookmark | None:
        """The bookmark, if its upload still lives and the file has not changed."""
        try:
            bookmark = msgspec.json.decode(self._path.read_bytes(), type=Bookmark)
        except (OSError, msgspec.MsgspecError):
            return None
        if bookmark.file == file and time.time() < bookmark.expires_at:
            return bookmark
        self.forget()
        return None

    def keep(self, bookmark: Bookmark) -> None:
        partial = self._path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(bookmark))
            partial.replace(self._path)

    def forget(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Forget the uploads of any file that nobody went on with."""
        with contextlib.suppress(OSError):
            for path in self._path.parent.iterdir():
                if path.stat().st_mtime < time.time() - LIFETIME_SECONDS:
                    path.unlink()


def _folder() -> Path:
    # A relative XDG_CACHE_HOME has to be ignored, says its specification.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if os.path.isabs(cache) else Path(os.path.expanduser("~/.cache"))
    return base / "nightshift" / "uploads"
