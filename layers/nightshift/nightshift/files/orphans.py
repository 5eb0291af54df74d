"""The bytes of files whose record never came, because the call that made them was killed between the two."""

from nightshift.core import bucket
from nightshift.core.ids import first_id
from nightshift.files import store as files

_DAY = 24 * 3600
# A file is recorded within minutes of its id's time, or never. A day on which nobody looks is made up for.
YOUNGEST_SECONDS, OLDEST_SECONDS = _DAY, 4 * _DAY


def purge(now: float) -> int:
    """Delete the bytes of files that have an id of one to four days ago and no record. Returns how many were found."""
    first, end = (first_id("file", now - seconds) for seconds in (OLDEST_SECONDS, YOUNGEST_SECONDS))
    found = 0
    for account_id in bucket.folders(files.key("", "").removesuffix("/")):
        for file_id in bucket.names(files.key(account_id, ""), first, end):
            if not files.is_recorded(account_id, file_id):
                files.purge(account_id, file_id)
                found += 1
    return found
