"""The depth of a document is what a parser finds, and any bytes take linear time."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.core import json_tokens
from nightshift.core.json_tokens import MAX_DEPTH, too_deep
from nightshift.core.surrogates import without_lone_surrogates
from nightshift.upstream.answer import is_json_object

pieces = st.lists(st.sampled_from(["[", "]", "{", "}", '"', "\\\\", '\\"', "a", ",", ":", "0"]), max_size=14)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(pieces.map("".join))
@settings(max_examples=500)
def test_depth_is_what_a_parser_finds(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tokens, "MAX_DEPTH", 2)
        verdict = too_deep(text.encode())
    try:
        parsed = json.loads(text)
    except ValueError:
        return
    assert verdict == (depth(parsed) > 2)


MANY = 200_000
AWKWARD = {
    "a string that does not end": b'{"a":"' + b'\\"' * MANY + b"[" * (MAX_DEPTH + 1),
    "an escape at the end": b'{"a":"' + b"\\" * MANY + b"[" * (MAX_DEPTH + 1),
    "a line break that is escaped": b'{"a":"' + b"\\\n" * MANY + b"[" * (MAX_DEPTH + 1),
    "quotes": b'"' * MANY + b"[" * (MAX_DEPTH + 1),
    "brackets side by side": b'{"a":[' + b"[]," * MANY + b"[]]}",
    "lone surrogates": rb'{"a":"' + rb"\ud83d" * MANY + b'"}',
    "surrogates between others": rb'{"a":"' + rb"\ud83d\n\ud83d\ude00" * MANY + b'"}',
    "backslashes": rb'{"a":"\ud83d' + b"\\" * MANY + b'"}',
    "short strings": b'{"a":[' + b'"",' * MANY + b"[]," * (MAX_DEPTH + 1) + b"0]}",
}


@pytest.mark.parametrize("document", AWKWARD.values(), ids=AWKWARD)
def test_any_document_takes_linear_time(document: bytes) -> None:
    # Quadratic code took an hour. CPU time is measured, because the machine may be busy.
    started = time.process_time()
    too_deep(document)
    is_json_object(document)
    without_lone_surrogates(document)
    assert time.process_time() - started < 20
