"""The tokens of a JSON document, and how deep it may be nested.

Parsers recurse, and how far they can depends on where they are called from. A document that is accepted in one function
must not fail in another, so what is nested deeper than ``MAX_DEPTH`` is refused wherever it comes in.
"""

import re

MAX_DEPTH = 500

# Possessive, so that a long string costs no memory for ways back.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]')


def too_deep(document: bytes) -> bool:
    """Whether ``document`` is nested deeper than ``MAX_DEPTH``. It need not be valid JSON."""
    if document.count(b"[") + document.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in TOKEN.finditer(document):
        if token[0] in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token[0] in b"]}":
            depth -= 1
    return False
