"""The requests of a checked file."""

from nightshift.input.request import requests

from tests.unit.input.checks import check
from tests.unit.samples import MODEL


def test_a_body_is_the_callers_own_bytes() -> None:
    body = b'{ "messages" : [1.10,  "\\u00e9"], "model":"gpt-4o-mini" }'
    line = b'{"body":' + body + b',"url":"/v1/chat/completions","method":"POST","custom_id":"a"}'
    assert check(line).verdict() == MODEL
    assert [bytes(parsed.body) for parsed in requests(line + b"\n")] == [body]
