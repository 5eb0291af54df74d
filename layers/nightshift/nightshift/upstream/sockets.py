"""How many connections to a provider this process may open: each is a file, and a process may have so many."""

import os
import resource
import sys

# What a worker opens besides, at most one file for each thread of asyncio's executor: connections to AWS, and look-ups
# of names. A worker with 1,000 requests in flight has been seen with three connections to AWS.
RESERVED = 6
_OPEN_FILES = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def room() -> int:
    """The number of connections that may still be opened, at least 1.

    A Lambda may have 1,024 open files (docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = 2**20
    return max(1, limit - len(os.listdir(_OPEN_FILES)) - RESERVED)
