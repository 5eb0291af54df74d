"""Lone surrogates in JSON, such as ``"\\ud83d"``: half of a character, which UTF-8 cannot encode.

Programs write them when they cut a text in the middle of an emoji. Everywhere they are read as U+FFFD, the replacement
character, as most parsers read them.
"""

import re

_REPLACEMENT = rb"\ufffd"
_SURROGATE = rb"u[dD][89a-fA-F][0-9a-fA-F]{2}"
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Everything before the next lone surrogate, then all that follow one another from there (group 1). Either may be empty,
# because a search that finds nothing begins again at each byte, which takes quadratic time.
_LONE = re.compile(rb"(?:[^\\]++|%b|\\(?!%b).)*+((?:(?!%b)\\%b)*+)" % (_PAIR, _SURROGATE, _PAIR, _SURROGATE), re.DOTALL)


def without_lone_surrogates(body: bytes) -> bytes:
    """``body`` with U+FFFD instead of each lone surrogate."""
    if not may_have_surrogates(body):
        return body
    mended = bytearray(body)
    for found in _LONE.finditer(body):
        start, end = found.span(1)
        if start < end:
            mended[start:end] = _REPLACEMENT * ((end - start) // len(_REPLACEMENT))
    return bytes(mended)


def may_have_surrogates(body: bytes) -> bool:
    """Whether ``body`` has an escape that begins as one of a surrogate."""
    return b"\\ud" in body or b"\\uD" in body
