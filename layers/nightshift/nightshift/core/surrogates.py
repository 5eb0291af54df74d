"""Lone surrogates in JSON, such as ``"\\ud83d"``: half of a character, which UTF-8 cannot encode.

Programs write them when they cut a text in the middle of an emoji. Everywhere they are read as U+FFFD, the replacement
character, as most parsers read them.
"""

import re

# Each escape in a JSON string: a surrogate pair, a lone surrogate (group 1), or any other escape.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def without_lone_surrogates(body: bytes) -> bytes:
    """``body`` with U+FFFD instead of each lone surrogate."""
    if not may_have_surrogates(body):
        return body
    mended = bytearray(body)
    for escape in _ESCAPE.finditer(body):
        if escape[1]:
            mended[escape.start() : escape.end()] = rb"\ufffd"
    return bytes(mended)


def may_have_surrogates(body: bytes) -> bool:
    """Whether ``body`` has an escape that begins as one of a surrogate."""
    return b"\\ud" in body or b"\\uD" in body
