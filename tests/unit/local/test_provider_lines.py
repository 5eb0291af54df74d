import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.provider_batches import Batch
from local.provider_lines import CANCELLED, EXPIRED, Answer, CheckedInput, check, output_and_errors
from local.simulation import Settings

CHAT = "/v1/chat/completions"
TEXT = st.text()


def line(custom_id: str, text: str = "Hello.", **changes: Any) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body} | changes).encode()


def checked(*lines: bytes, **settings: Any) -> CheckedInput:
    return check(b"\n".join(lines), CHAT, Settings(**settings))


@pytest.mark.parametrize(
    ("second", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (line("1"), "duplicate_custom_id", "custom_id"),
        (line("2", method="GET"), "invalid_method", "method"),
        (line("2", url="/v1/embeddings"), "invalid_url", "url"),
        (line("2", body={"model": "other"}), "mismatched_model", "body.model"),
        (line("2", body={"messages": []}), "missing_required_parameter", "body.model"),
        (line("2", body="{}"), "missing_required_parameter", "body"),
        (line(""), "missing_required_parameter", "custom_id"),
    ],
)
def test_validation_names_what_is_wrong(second: bytes, code: str, param: str | None) -> None:
    problems = checked(line("1"), b"", second).problems
    assert [(each.code, each.line, each.param) for each in problems] == [(code, 3, param)]


def test_an_empty_file_is_refused() -> None:
    assert [each.code for each in checked(b"", b" ").problems] == ["empty_file"]


def test_too_many_requests_are_refused() -> None:
    assert not checked(line("1"), line("2"), max_batch_requests=2).problems
    [problem] = checked(line("1"), line("2"), max_batch_requests=1).problems
    assert (problem.code, problem.line) == ("too_many_tasks", None)


@pytest.mark.parametrize("body", [{"model": "m"}, {"model": "m", "messages": []}, {"model": "m", "messages": [{}]}])
def test_a_request_without_a_prompt_is_a_400(body: dict[str, Any]) -> None:
    [answer] = checked(line("1", body=body)).answers
    assert json.loads(answer.line)["response"]["status_code"] == 400
    assert answer.in_error_file


@given(st.dictionaries(TEXT.filter(bool), TEXT, min_size=1), st.data())
def test_every_request_is_in_one_file_once(requests: dict[str, str], data: st.DataObject) -> None:
    faults = {"error_rate": {"500": 0.3}, "batch_error_rate": 0.3}
    answers = checked(*map(line, requests, requests.values()), **faults).answers
    answered = data.draw(st.integers(0, len(answers)))
    reason = data.draw(st.sampled_from([EXPIRED, CANCELLED]))
    output, errors = output_and_errors(answers[:answered], answers[answered:], reason, Settings())
    found = [json.loads(each) for each in output.splitlines() + errors.splitlines()]
    assert sorted(each["custom_id"] for each in found) == sorted(requests)
    assert all((each["response"] is None) != (each["error"] is None) for each in found)


def test_half_of_a_surrogate_pair_is_answered() -> None:
    [answer] = checked(line("\ud800", "\udfff")).answers
    assert json.loads(answer.line)["custom_id"] == "\ud800"


@given(st.lists(st.floats(0, 2), min_size=1), st.integers(0, 50))
def test_progress_never_goes_back(shares: list[float], count: int) -> None:
    batch = Batch("batch_1", "file-1", CHAT, None, created_at=0)
    batch.answers = [Answer(str(number), "", True, False, b"") for number in range(count)]
    seen = [0]
    for share in shares:
        batch.advance(share)
        seen.append(batch.as_json()["request_counts"]["completed"])
    assert seen == sorted(seen)
    assert seen[-1] <= count
