"""Identifiers. New ids sort by the time of their creation. Derived ids depend on their parts alone."""

import hashlib
import secrets
import time

# Crockford's base 32 in lower case: ids sort like their bits, and no two characters look alike
# (https://crockford.com/base32.html).
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def _base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (length - 1), -1, -5))


def new_id(prefix: str, now: float | None = None) -> str:
    """``<prefix>_`` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    return f"{prefix}_{_base32(milliseconds << 80 | secrets.randbits(80), 26)}"


def first_id(prefix: str, at: float) -> str:
    """The id before all that were made at the time ``at`` or later, and after all others."""
    return f"{prefix}_{_base32(int(at * 1000) << 80, 26)}"


def derived_id(prefix: str, *parts: str, at: float | None = None) -> str:
    """``<prefix>_`` and 26 characters that depend on ``parts`` and ``at`` alone, so that repeated work has one result.

    With ``at`` (seconds) the id sorts among the new ids of that time.
    """
    digest = int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest())
    if at is not None:
        digest = int(at * 1000) << 80 | digest & (1 << 80) - 1
    return f"{prefix}_{_base32(digest, 26)}"


def request_line_id(batch_id: str, line: int) -> str:
    """The id of one output line: the characters of the batch's id, then the line's number, counted from 0."""
    return f"batch_req_{batch_id.removeprefix('batch_')}{_base32(line, 4)}"
