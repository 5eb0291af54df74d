"""The lines of a provider's files: what is read as whose answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.submissions.lines import read_answer, request_line

GOOD = {"status_code": 200, "request_id": "r", "body": {"choices": []}}


def line(custom_id: Any, **fields: Any) -> bytes:
    return json.dumps({"id": "x", "custom_id": custom_id, "response": GOOD, "error": None} | fields).encode()


@given(st.integers(min_value=0, max_value=999_999_999))
def test_a_line_is_found_by_the_number_that_was_sent(number: int) -> None:
    sent = json.loads(request_line(number, b"{}", "/v1/chat/completions"))
    answer = read_answer(line(sent["custom_id"]))
    assert answer is not None
    assert answer.number == number


@pytest.mark.parametrize("custom_id", ["00", "01", "-1", "+1", " 1", "1 ", "1\n", "1.0", "", "x", "\u0661", "1" * 10])
def test_a_line_that_was_not_sent_is_nobodys_answer(custom_id: str) -> None:
    assert read_answer(line(custom_id)) is None


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"custom_id": 1}', b"\xff", line(None)])
def test_what_is_no_line_is_nobodys_answer(content: bytes) -> None:
    assert read_answer(content) is None


@pytest.mark.parametrize("code", ["batch_expired", "batch_cancelled", "batch_canceled"])
def test_a_line_that_the_provider_did_not_reach_has_no_answer(code: str) -> None:
    assert read_answer(line("1", response=None, error={"code": code, "message": "no"})) is None


@pytest.mark.parametrize("error", ["it broke", {"code": "it broke"}, {"message": "it\nbroke"}])
def test_an_error_is_told_in_the_providers_words(error: Any) -> None:
    answer = read_answer(line("1", response=None, error=error))
    assert answer is not None
    assert (answer.error, answer.final) == ("it broke", False)


@pytest.mark.parametrize(("status", "final"), [(200, True), (400, True), (422, True), (401, False), (429, False)])
def test_what_says_something_of_the_moment_is_not_final(status: int, final: bool) -> None:
    answer = read_answer(line("1", response={**GOOD, "status_code": status}))
    assert answer is not None
    assert answer.final is final


@pytest.mark.parametrize("status", [500, 503])
def test_an_error_of_the_provider_is_not_final(status: int) -> None:
    answer = read_answer(line("1", response={**GOOD, "status_code": status}))
    assert answer is not None
    assert not answer.final
