"""The bytes of output lines: exactly those of docs/contract.md, with the upstream's own bytes inside."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.results.line import OutputLine, answered_line, failed_line
from nightshift.results.usage import Usage

from tests.unit.results.bodies import Pairs, bodies, read


def test_an_answered_line_follows_the_contract() -> None:
    line = answered_line("batch_0123", 7, "a", 200, "req_1", b'{"object":"chat.completion"}', Usage(1))
    assert line.content == (
        b'{"id":"batch_req_01230007","custom_id":"a","response":{"status_code":200,"request_id":"req_1",'
        b'"body":{"object":"chat.completion"}},"error":null}'
    )
    assert line == OutputLine(7, line.content, answered=True, usage=Usage(1))


@pytest.mark.parametrize(("status", "answered"), [(200, True), (201, True), (299, True), (199, False), (300, False)])
def test_only_2xx_goes_to_the_output_file(status: int, answered: bool) -> None:
    assert answered_line("batch_1", 0, "a", status, "r", b"{}", None).answered is answered


def test_a_failed_line_follows_the_contract() -> None:
    line = failed_line("batch_0123", 40, "c", "batch_expired", "Too late.")
    assert line.content == (
        b'{"id":"batch_req_01230018","custom_id":"c","response":null,'
        b'"error":{"code":"batch_expired","message":"Too late."}}'
    )
    assert (line.answered, line.usage) == (False, None)


@given(body=bodies(), custom_id=st.text(), request_id=st.text(max_size=20))
def test_any_answer_becomes_one_line(body: bytes, custom_id: str, request_id: str) -> None:
    line = answered_line("batch_1", 3, custom_id, 200, request_id, body, None).content
    assert b"\n" not in line
    assert b"\r" not in line
    parsed = json.loads(line, object_pairs_hook=Pairs)
    assert [key for key, _ in parsed] == ["id", "custom_id", "response", "error"]
    response = dict(dict(parsed)["response"])
    assert (dict(parsed)["custom_id"], response["request_id"]) == (custom_id, request_id)
    assert response["body"] == read(body)


def test_an_indented_answer_keeps_its_values() -> None:
    body = json.dumps({"text": "two\nlines", "n": [1, 2]}, indent=2).replace("\n", "\r\n").encode()
    line = answered_line("batch_1", 0, "a", 200, "r", b"\n" + body + b"\r\n", None).content
    assert json.loads(line)["response"]["body"] == {"text": "two\nlines", "n": [1, 2]}
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_a_line_is_one_line_for_every_reader(character: str) -> None:
    text = f"a{character}b\u00e9"
    body = json.dumps({"text": text}, ensure_ascii=False).encode()
    answered = answered_line("batch_1", 0, text, 200, "req_1", body, None).content
    failed = failed_line("batch_1", 0, text, "batch_expired", text).content
    for content in (answered, failed):
        assert content.decode().splitlines() == [content.decode()]
        assert json.loads(content)["custom_id"] == text
    assert json.loads(answered)["response"]["body"] == {"text": text}
    assert "\u00e9".encode() in answered
