"""The tokens of a JSON document, and how deeply it is nested.

Parsers recurse, and the depth that a parser reaches depends on the stack of its caller. A document that one function
accepts must not fail in another, so everything that arrives is refused if it is nested deeper than ``MAX_DEPTH``.
"""

import re
from itertools import accumulate

MAX_DEPTH = 500

# Possessive quantifiers: no backtracking state for long strings. An unterminated string matches too, because otherwise
# each later quote would be tried as the start of a string, which takes quadratic time.
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
