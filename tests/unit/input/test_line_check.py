"""The check of one line: each fault has its code, its parameter and a message with what to do."""

import json
from typing import Any

import pytest
from nightshift.core.json_tokens import MAX_DEPTH
from nightshift.input.line_check import MAX_LINE_BYTES, LineReport, check_line
from nightshift.input.request import requests
from nightshift.routes.endpoint import DEFAULT, ENDPOINTS

from tests.unit.input.checks import check, codes, raw
from tests.unit.samples import MODEL, request, request_line


def report(line: bytes) -> LineReport:
    return check_line(line, ENDPOINTS[DEFAULT])


def test_a_valid_line_has_an_id_and_a_model() -> None:
    assert report(request_line("a")) == LineReport((), "a", MODEL, 1)


def test_a_faulty_line_keeps_its_id_and_model() -> None:
    found = report(request_line("a", method="GET"))
    assert (found.custom_id, found.model) == ("a", MODEL)


@pytest.mark.parametrize("line", [b"{", raw(custom_id="7", body='{"model":[]}')])
def test_an_unusable_id_or_model_is_none(line: bytes) -> None:
    found = report(line)
    assert (found.custom_id, found.model) == (None, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "The line is blank; remove it."),
        (b"{} {}", "The line is not valid JSON: trailing characters (byte 4)."),
        (b" [1]", "The line is not a JSON object, but an array."),
        (b"\xef\xbb\xbf{}", "The line starts with a byte order mark (BOM); save the file as UTF-8 without it."),
        (b'{"a":"\xff"}', "The line is not valid UTF-8; save the file as UTF-8."),
        (request_line(url=...), "Missing required parameter: url."),
        (request_line(method="GET"), "Invalid value for method: 'GET'; use 'POST'."),
        (request_line(method=1), "Invalid value for method: a number; use 'POST'."),
        (request_line(url="/v1/x"), "The url '/v1/x' does not match the endpoint /v1/chat/completions."),
        (request_line(custom_id=""), "Invalid value for custom_id: it must not be empty."),
        (raw(custom_id="true"), "Invalid type for custom_id: expected a string, but got a boolean."),
        (raw(body="[]"), "Invalid type for body: expected an object, but got an array."),
        (request_line(body={"model": ...}), "Missing required parameter: body.model."),
        (request_line(body={"model": {}}), "Invalid type for body.model: expected a string, but got an object."),
        (request_line(body={"messages": "x"}), "Invalid type for body.messages: expected an array, but got a string."),
        (request_line(body={"messages": []}), "Invalid value for body.messages: it must not be empty."),
        (request_line(body={"stream": True}), "Streaming is not supported in a batch; remove body.stream."),
        (
            raw().replace(b'"custom_id"', b'"custom_id":1,"custom_id"'),
            "The line is not a valid request; check it for repeated keys.",
        ),
    ],
)
def test_a_message_says_what_is_wrong(line: bytes, message: str) -> None:
    assert [fault.message for fault in report(line).faults] == [message]


@pytest.mark.parametrize("value", ["x" * 1_000_000, "\x1b[31m\u202e" * 50])
def test_a_shown_value_is_short_and_printable(value: str) -> None:
    for fault in report(request_line(method=value, url=value)).faults:
        assert len(fault.message) < 600
        assert fault.message.isascii()
        assert fault.message.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        request_line(extra={"deep": [1, {"er": None}]}),
        request_line(body={"temperature": 0.5, "tools": [{"type": "function"}], "made_up": True}),
        request_line(body={"stream": False}),
        request_line(body={"stream": None}),
        b"  \t" + request_line() + b" \r",
        json.dumps(request(body={"messages": ["Zoë \u2028 \U0001f600"]}), ensure_ascii=False).encode(),
        raw(',"seed":' + "9" * 400),
        raw(',"temperature":1e999'),
        raw(',"x":1,"x":2'),
        raw(',"messages":[1],"model":"' + MODEL + '"'),
        raw(',"x":' + "[" * 50 + "]" * 50),
        raw(custom_id='"\\ud83d\\ude00\\u0000\\n"'),
        raw(custom_id='"' + "x" * 100_000 + '"'),
        raw(custom_id='"\\ud83d"'),
        raw(',"t":"\\udc00\\ud800"'),
        raw(',"t":"' + "x" * 15_000_000 + '"'),
    ],
)
def test_a_valid_line_is_accepted(line: bytes) -> None:
    assert check(line).verdict() == MODEL


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"not json", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"null", "invalid_json_line", None),
        (b'"text"', "invalid_json_line", None),
        (b"{}{}", "invalid_json_line", None),
        (request_line() + b",", "invalid_json_line", None),
        (b"\x00", "invalid_json_line", None),
        (raw(',"t":NaN'), "invalid_json_line", None),
        (raw(',"t":-Infinity'), "invalid_json_line", None),
        (raw(',"t":01'), "invalid_json_line", None),
        (raw(',"t":"\t"'), "invalid_json_line", None),
        (raw(',"t":"\\x"'), "invalid_json_line", None),
        (raw(',"t":1,'), "invalid_json_line", None),
        (raw(',"t":"').replace(b'"t":"', b'"t":"\xff"'), "invalid_json_line", None),
        (raw().replace(b'"x"', b'"\xed\xa0\x80"'), "invalid_json_line", None),
        (raw().replace(b'{"custom_id"', b'{"skipped":"\xc3","custom_id"'), "invalid_json_line", None),
        (raw(',"t":' + "[" * 100_000), "invalid_json_line", None),
        (raw(',"t":' + "[" * 100_000 + "]" * 100_000), "invalid_json_line", None),
        (raw(',"t":' + '{"a":' * 100_000 + "1" + "}" * 100_000), "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (request_line(custom_id=...), "missing_required_parameter", "custom_id"),  # type: ignore[arg-type]
        (request_line(custom_id=None), "missing_required_parameter", "custom_id"),  # type: ignore[arg-type]
        (request_line(method=...), "missing_required_parameter", "method"),
        (request_line(url=...), "missing_required_parameter", "url"),
        (raw(body="null"), "missing_required_parameter", "body"),
        (raw().replace(b'"body"', b'"Body"'), "missing_required_parameter", "body"),
        (request_line(method="GET"), "invalid_method", "method"),
        (request_line(method="post"), "invalid_method", "method"),
        (request_line(method=1), "invalid_method", "method"),
        (request_line(url="/v1/embeddings"), "invalid_url", "url"),
        (request_line(url="/v1/chat/completions/"), "invalid_url", "url"),
        (request_line(url=["/v1/chat/completions"]), "invalid_url", "url"),
        (request_line(custom_id=""), "invalid_request", "custom_id"),
        (request_line(custom_id=7), "invalid_request", "custom_id"),  # type: ignore[arg-type]
        (raw(body="[]"), "invalid_request", "body"),
        (raw(body='"text"'), "invalid_request", "body"),
        (request_line(body={"model": ...}), "invalid_request", "body.model"),
        (request_line(body={"model": None}), "invalid_request", "body.model"),
        (request_line(body={"model": ""}), "invalid_request", "body.model"),
        (request_line(body={"model": 4}), "invalid_request", "body.model"),
        (request_line(body={"messages": ...}), "invalid_request", "body.messages"),
        (request_line(body={"messages": []}), "invalid_request", "body.messages"),
        (request_line(body={"messages": "Hello."}), "invalid_request", "body.messages"),
        (request_line(body={"messages": {"role": "user"}}), "invalid_request", "body.messages"),
        (request_line(body={"stream": True}), "streaming_unsupported", "body.stream"),
        (request_line(body={"stream": 0}), "streaming_unsupported", "body.stream"),
        (request_line(body={"stream": "no"}), "streaming_unsupported", "body.stream"),
        (request_line(body={"x": "y" * MAX_LINE_BYTES}), "line_too_long", None),
        (b"x" * (MAX_LINE_BYTES + 1), "line_too_long", None),
    ],
)
def test_a_fault_has_its_code_and_param(line: bytes, code: str | None, param: str | None) -> None:
    fine = request_line("fine")
    for content in (fine + b"\n" + line, fine + b"\n" + line + b"\n"):
        assert codes(check(content)) == ([(code, param, 2)] if code else [])
    assert codes(check(line + b"\n" + fine)) == ([(code, param, 1)] if code else [])


def test_all_faults_of_a_line_are_found() -> None:
    assert codes(check(b'{"method":"PUT","url":"/","body":{"stream":true}}')) == [
        ("missing_required_parameter", "custom_id", 1),
        ("invalid_method", "method", 1),
        ("invalid_url", "url", 1),
        ("invalid_request", "body.model", 1),
        ("invalid_request", "body.messages", 1),
        ("streaming_unsupported", "body.stream", 1),
    ]


@pytest.mark.parametrize("extra", [',"t":1e999', ',"t":' + "9" * 5_000])
def test_huge_numbers_do_not_hide_a_fault(extra: str) -> None:
    """They are valid JSON, and the upstream decides about them; the fault is the method."""
    assert codes(check(raw(extra, method='"GET"'))) == [("invalid_method", "method", 1)]


def test_the_longest_valid_line_is_accepted() -> None:
    filler = MAX_LINE_BYTES - len(request_line(body={"x": ""}))
    line = request_line(body={"x": "y" * filler})
    assert len(line) == MAX_LINE_BYTES
    assert check(line + b"\n").verdict() == MODEL


def test_the_deepest_line_needs_little_stack() -> None:
    """Other functions parse an accepted line again, with less stack left, and must not fail."""

    def nested(depth: int) -> bytes:
        return raw(',"t":' + "[" * depth + "]" * depth)

    def from_deeper(frames: int, line: bytes) -> Any:
        return from_deeper(frames - 1, line) if frames else next(iter(requests(line)))

    deepest = max(depth for depth in range(0, 3_000, 2) if not check(nested(depth)).faults)
    assert from_deeper(100, nested(deepest)).custom_id == "a"


@pytest.mark.parametrize("text", ["", "[{" * 1_000])
@pytest.mark.parametrize("opener", ["[", '{"a":'])
@pytest.mark.parametrize(
    "where",
    [
        pytest.param('"model":"gpt-4o-mini","messages":[{"content":"TEXT"},{"content":DEEP}]', id="content"),
        pytest.param('"model":"gpt-4o-mini","messages":[{"content":"TEXT","x":DEEP}]', id="message"),
        pytest.param('"model":"gpt-4o-mini","messages":[{"content":"TEXT"},DEEP]', id="messages"),
        pytest.param('"model":"gpt-4o-mini","messages":["TEXT",DEEP]', id="messages that are no objects"),
        pytest.param('"tools":DEEP,"model":"gpt-4o-mini","messages":[{"content":"TEXT"}]', id="body"),
    ],
)
def test_depth_counts_everywhere_but_in_texts(where: str, opener: str, text: str) -> None:
    def line(levels: int) -> bytes:
        closer = "]" if opener == "[" else "}"
        deep = opener * levels + ("1" if opener != "[" else "") + closer * levels
        body = "{" + where.replace("TEXT", text).replace("DEEP", deep) + "}"
        return raw(body=body)

    assert check(line(MAX_DEPTH - 10)).faults == []
    [fault] = check(line(MAX_DEPTH + 1)).faults
    assert fault.message == f"The line is nested deeper than {MAX_DEPTH} levels."
