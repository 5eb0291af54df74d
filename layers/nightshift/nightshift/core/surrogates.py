"""Lone surrogates in JSON, such as ``"\\ud83d"``: half of a character, which UTF-8 cannot encode.

Programs write them when they cut a text in the middle of an emoji. Everywhere they are read as U+FFFD, the replacement
character, as most parsers read them.
"""

import re

_REPLACEMENT = rb"\ufffd"
_SURROGATE = rb"u[dD][89a-fA-F][0-9a-fA-F]{2}"
_PAIR = rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# A backslash with what it escapes, where that looks like a surrogate or hides one; lone surrogates that follow one
# another are group 1, without their first backslash, and not too many of them, because each takes memory. Possessive
# quantifiers would be quicker, but before Python 3.11.5 they find wrong matches (python/cpython#106052).
_LONE = re.compile(rb"\\(?:\\|%b|(%b(?:\\(?!%b)%b){0,999}))" % (_PAIR, _SURROGATE, _PAIR, _SURROGATE))


def without_lone_surrogates(body: bytes) -> bytes:
    """``body`` with U+FFFD instead of each lone surrogate."""
    if not may_have_surrogates(body):
        return body
    mended = bytearray(body)
    for found in _LONE.finditer(body):
        start, end = found.span(1)
        if start >= 0:
            mended[start - 1 : end] = _REPLACEMENT * ((end - start + 1) // len(_REPLACEMENT))
    return bytes(mended)


def may_have_surrogates(body: bytes) -> bool:
    """Whether ``body`` has an escape that begins as one of a surrogate."""
    return b"\\ud" in body or b"\\uD" in body
