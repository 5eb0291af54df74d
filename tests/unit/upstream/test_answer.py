"""What an upstream's answer means for its line."""

import email.utils
import json
import re
import tracemalloc
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.core.headers import retry_after
from nightshift.core.surrogates import without_lone_surrogates
from nightshift.upstream.answer import (
    FAILURES,
    MAX_TRIES,
    Answer,
    Failure,
    Verdict,
    error_body,
    is_json_object,
    judge,
    status_of,
)

NOW = 1_700_000_000.0


@pytest.mark.parametrize("answer", [Answer(429), Answer(503), Answer(failure="connect")])
@pytest.mark.parametrize("tries", [1, MAX_TRIES, 1_000])
def test_not_now_is_never_final(answer: Answer, tries: int) -> None:
    assert judge(answer, tries) == "not_now"


@pytest.mark.parametrize(
    "answer",
    [Answer(status) for status in (408, 500, 502, 504, 520, 524, 529, 599)]
    + [Answer(failure=f) for f in ("timeout", "broken", "not_json")],
)
def test_a_passing_fault_is_tried_five_times(answer: Answer) -> None:
    verdicts: list[Verdict] = [judge(answer, tries) for tries in range(1, 7)]
    assert verdicts == ["retry"] * 4 + ["final"] * 2


@given(st.integers(100, 599), st.integers(1, 10))
def test_every_other_status_is_final_at_once(status: int, tries: int) -> None:
    if status in (501, 505) or (status < 500 and status not in (408, 429)):
        assert judge(Answer(status), tries) == "final"


def test_a_too_long_answer_is_not_retried() -> None:
    assert judge(Answer(failure="too_long"), 1) == "final"


@pytest.mark.parametrize("failure", get_args(Failure))
def test_a_failure_has_a_code_and_a_message(failure: Failure) -> None:
    code, message = FAILURES[failure]
    assert code in ("request_timeout", "upstream_unreachable")
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": email.utils.formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": email.utils.formatdate(NOW - 90, usegmt=True)}, None),
        ({"retry-after": "Wed, 99 Foo 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +0100"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 -0000"}, None),
        ({"retry-after": "Fri, 31 Dec 9998 23:59:59 GMT"}, 251670764799.0),
        ({"retry-after": "Fri, 31 Dec 2100 23:59:59 +9999"}, None),
    ],
)
def test_retry_after_is_parsed(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


dates = st.builds(
    "{} {} {} {}:{}:{} {}".format,
    *[st.integers(-1, 100), st.sampled_from(["Jan", "Feb", "Xxx"]), st.integers(0, 10_000)],
    *[st.integers(-1, 70)] * 3,
    st.sampled_from(["GMT", "-0000", "+9999", "-2400", "EST", ""]),
)


@given(st.text(max_size=30) | st.floats().map(str) | dates)
def test_no_retry_after_raises(value: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        seconds = retry_after({name: value}, NOW)
        assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize("body", [b"{}", b' {"a":[1,{"b":null}]}\n', '{"é":"\U0001f600"}'.encode(), b'{"x":1e999}'])
def test_a_json_object_is_valid(body: bytes) -> None:
    assert is_json_object(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"null", b'"{}"', b"{", b"{}{}", b"<html>", b'{"x":NaN}', b'{"x":"\xff"}', b"\xef\xbb\xbf{}"),
        *(b'{"x":"\n"}', b'{"x":' + b"[" * 100_000, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
)
def test_any_other_body_is_invalid(body: bytes) -> None:
    assert not is_json_object(body)


@given(st.binary(max_size=60))
def test_a_valid_object_is_one_to_json_too(body: bytes) -> None:
    if is_json_object(body):
        assert isinstance(json.loads(body), dict)


@given(st.integers(100, 599), st.binary(max_size=6_000))
def test_an_error_page_becomes_an_error(status: int, body: bytes) -> None:
    wrapped = error_body(status, body)
    error = json.loads(wrapped)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) <= 1_000
    assert is_json_object(wrapped)


def test_an_empty_error_page_has_a_message() -> None:
    assert json.loads(error_body(502, b" \n "))["error"]["message"] == "The upstream answered 502 without a body."


HIGH, LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
ESCAPES = [r"\ud83d", r"\uDBff", r"\ude00", r"\uDC00", r"\n", r"\u00e9", r"\ud7ff", r"\ud83"]


@pytest.mark.parametrize(
    ("body", "mended"),
    [
        (rb'{"a":"x\ud83d"}', rb'{"a":"x\ufffd"}'),
        (rb'{"a":"\udc00y"}', rb'{"a":"\ufffdy"}'),
        (rb'{"a":"\ud83d\ude00"}', rb'{"a":"\ud83d\ude00"}'),
        (rb'{"a":"\ud83d\ud83d\ude00\ude00"}', rb'{"a":"\ufffd\ud83d\ude00\ufffd"}'),
        (rb'{"a":"\\ud83d"}', rb'{"a":"\\ud83d"}'),
        (rb'{"a":"\\\ud83d\\"}', rb'{"a":"\\\ufffd\\"}'),
    ],
)
def test_only_lone_surrogates_are_replaced(body: bytes, mended: bytes) -> None:
    assert without_lone_surrogates(body) == mended
    assert is_json_object(mended)


@given(st.lists(st.sampled_from([*ESCAPES, "\\", "u", "d83d", '"', "é"]), max_size=12).map("".join))
def test_each_lone_surrogate_is_replaced_and_nothing_else(text: str) -> None:
    """As by a reader that goes from escape to escape."""
    pairs_and_rest = re.compile(rf"({HIGH}{LOW})|{HIGH}|{LOW}|(\\.)", re.DOTALL)
    expected = pairs_and_rest.sub(lambda found: found[1] or found[2] or r"\ufffd", text)
    assert without_lone_surrogates(text.encode()).decode() == expected


@pytest.mark.parametrize("rest", [rb"\\", rb"\ud800", rb"\ud800x", rb"\n"])
def test_surrogates_need_little_memory(rest: bytes) -> None:
    body = b'{"a":"\\ud800' + rest * (1 << 18) + b'"}'
    tracemalloc.start()
    try:
        mended = without_lone_surrogates(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mended == body.replace(b"\\ud800", b"\\ufffd")
    assert peak < 5 * len(body)


def test_many_fields_need_little_memory() -> None:
    body = ("{" + ",".join(f'"{number}":0' for number in range(200_000)) + "}").encode()
    tracemalloc.start()
    try:
        assert is_json_object(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"error":{"code":502,"message":"x"}}', 502),
        (b'{"error":{"code":429}}', 429),
        (b'{"error":{"code":"429"}}', 429),
        (b'{"error":{"code":"bad_request"}}', 502),
        (b'{"error":{"code":200}}', 502),
        (b'{"error":"down","choices":null}', 502),
        (b'{"error":null,"choices":[]}', 200),
        (b'{"error":{"code":502},"choices":[{}]}', 200),
        (b'{"output":[],"error":{"code":"x"}}', 200),
        (b'{"text":"an \\"error\\""}', 200),
        (b"{}", 200),
    ],
)
def test_an_error_with_status_200_is_an_error(body: bytes, status: int) -> None:
    assert status_of(200, body) == status
    assert status_of(404, body) == 404
