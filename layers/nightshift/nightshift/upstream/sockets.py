"""How many connections to a provider this process may open: each is a file, and a process may have so many.

A Lambda may have 1,024 (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
"""

import os
import resource
import sys

# Files for what a worker opens besides: connections to AWS, of which three have been seen, and look-ups of names.
RESERVED = 6
# A connection may take what ``room`` reserves for AWS and is not used yet, but for these.
LAST = 3
_OPEN_FILES = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def room() -> int:
    """The number of connections that may still be opened, at least 1."""
    try:
        opened = len(os.listdir(_OPEN_FILES))
    except OSError:
        return 1  # not even this file could be opened
    return max(1, _limit() - opened - RESERVED)


def is_full() -> bool:
    """Whether another connection would take one of the last files.

    The system gives the lowest number that is free, so one of the last numbers says that all others are taken.
    """
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return True
    os.close(lowest)
    return lowest >= _limit() - LAST


def _limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if limit == resource.RLIM_INFINITY else limit
