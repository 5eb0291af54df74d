"""The tokens of a JSON document, and how deep it may be nested.

Parsers recurse, and how far they can depends on where they are called from. A document that is accepted in one function
must not fail in another, so what is nested deeper than ``MAX_DEPTH`` is refused wherever it comes in.
"""

import re
from itertools import accumulate

MAX_DEPTH = 500

# Possessive, so that a long string costs no memory for ways back. One that does not end is a string too: otherwise each
# quote in it would be tried as the start of another.
_STRING = rb'"(?:[^"\\]++|\\.)*+"?'
TOKEN = re.compile(_STRING + rb"|[{}\[\]:,]", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def too_deep(document: bytes) -> bool:
    """Whether ``document`` is nested deeper than ``MAX_DEPTH``. It need not be valid JSON."""
    if document.count(b"[") + document.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", document).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH
