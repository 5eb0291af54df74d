"""The Range header of a download (RFC 9110, section 14)."""

import re

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


class UnsatisfiableRangeError(Exception):
    """The range begins behind the end of the file, or has no byte."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte of the range in ``header``, and the one after its last, of a file of ``size`` bytes.

    None means the whole file: there is no header, or it is not a single range of bytes, which RFC 9110 has a server
    ignore.

    Raises:
        UnsatisfiableRangeError: the file has none of these bytes.
    """
    matched = _RANGE.fullmatch((header or "").strip().lower())
    if matched is None or matched[0] == "bytes=-":
        return None
    first, last = matched[1][:20], matched[2][:20]
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise UnsatisfiableRangeError
    return start, end
