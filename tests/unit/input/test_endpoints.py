"""What a line must hold for each endpoint, and how many inputs a batch of embeddings may have."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift.core.json_tokens import MAX_DEPTH
from nightshift.input.file_check import FileCheck
from nightshift.input.line_check import LineReport, check_line
from nightshift.routes.endpoint import ENDPOINTS, EndpointPath

from tests.unit.input.checks import codes

PATHS = list(ENDPOINTS)
PROMPTS: dict[EndpointPath, Any] = {
    "/v1/chat/completions": [{"role": "user", "content": "Hello."}],
    "/v1/responses": "Hello.",
    "/v1/embeddings": ["Hello.", "Good night."],
    "/v1/completions": "Once upon",
    "/v1/moderations": [{"type": "text", "text": "Hello."}],
}


def line(path: EndpointPath, custom_id: str = "a", url: str | None = None, **body: Any) -> bytes:
    given = {"model": "m", ENDPOINTS[path].prompt: PROMPTS[path]} | body
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url or path, "body": given}).encode()


def report(path: EndpointPath, content: bytes) -> LineReport:
    return check_line(content, ENDPOINTS[path])


def faults(path: EndpointPath, **body: Any) -> list[tuple[str, str | None]]:
    return [(fault.code, fault.param) for fault in report(path, line(path, **body)).faults]


def test_each_endpoint_has_a_prompt_to_test() -> None:
    assert PROMPTS.keys() == ENDPOINTS.keys()


@pytest.mark.parametrize("path", PATHS)
def test_a_valid_line_has_an_id_and_a_model(path: EndpointPath) -> None:
    found = report(path, line(path, temperature=0.5))
    assert (found.faults, found.custom_id, found.model) == ((), "a", "m")


@pytest.mark.parametrize("path", PATHS)
def test_a_line_of_another_endpoint_is_refused(path: EndpointPath) -> None:
    other = next(each for each in PATHS if each != path)
    [fault] = report(path, line(path, url=other)).faults
    assert (fault.code, fault.param) == ("invalid_url", "url")
    assert fault.message == f"The url '{other}' does not match the endpoint {path}."


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prompt", [None, 7, {}, True, [], ""])
def test_a_line_needs_its_prompt(path: EndpointPath, prompt: Any) -> None:
    name = ENDPOINTS[path].prompt
    [fault] = report(path, line(path, **{name: prompt})).faults
    assert (fault.code, fault.param) == ("invalid_request", f"body.{name}")
    assert f"body.{name}" in fault.message


@pytest.mark.parametrize("path", PATHS)
def test_a_line_without_any_prompt_is_told_which(path: EndpointPath) -> None:
    content = json.dumps({"custom_id": "a", "method": "POST", "url": path, "body": {"model": "m"}}).encode()
    assert report(path, content).faults[0].message == f"Missing required parameter: body.{ENDPOINTS[path].prompt}."


@pytest.mark.parametrize("path", PATHS)
def test_streams_and_background_are_refused(path: EndpointPath) -> None:
    assert faults(path, stream=False) == []
    assert faults(path, stream=True) == [("streaming_unsupported", "body.stream")]
    expected = [("invalid_request", "body.background")] if path == "/v1/responses" else []
    assert faults(path, background=True) == expected


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/responses", [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]),
        ("/v1/responses", [{"type": "function_call_output", "call_id": "c", "output": "1"}]),
        ("/v1/embeddings", [1, 2, 3]),
        ("/v1/embeddings", [[1, 2], [3]]),
        ("/v1/completions", ["a", "b"]),
        ("/v1/completions", "   "),
        ("/v1/moderations", "x"),
        ("/v1/responses", "[" * 3 * MAX_DEPTH),
        ("/v1/embeddings", ["{" * 3 * MAX_DEPTH]),
    ],
)
def test_every_form_of_a_prompt_is_taken(path: EndpointPath, prompt: Any) -> None:
    assert faults(path, **{ENDPOINTS[path].prompt: prompt}) == []


@pytest.mark.parametrize("path", PATHS)
def test_deep_nesting_is_refused(path: EndpointPath) -> None:
    deep = json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert faults(path, metadata=deep) == [("invalid_json_line", None)]


values: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 7, "", "x", [], ["x"], [7], [[7]], [{}], [{"content": "x"}], {}]
)


@given(st.sampled_from(PATHS), values, values, values, values)
def test_a_line_is_valid_or_its_fault_has_a_name(
    path: EndpointPath, prompt: Any, stream: Any, background: Any, model: Any
) -> None:
    body = {ENDPOINTS[path].prompt: prompt, "stream": stream, "background": background, "model": model}
    found = report(path, line(path, **body))
    # The slow check says so of a line that the quick check refuses without a reason.
    assert not any("repeated keys" in fault.message for fault in found.faults)


# --- inputs ---------------------------------------------------------------------------------------------------------


def checked(path: EndpointPath, *prompts: Any) -> FileCheck:
    done = FileCheck(path)
    name = ENDPOINTS[path].prompt
    done.feed(b"\n".join(line(path, str(number), **{name: prompt}) for number, prompt in enumerate(prompts)))
    done.finish()
    return done


def test_a_batch_may_have_50_000_embedding_inputs() -> None:
    assert checked("/v1/embeddings", ["x"] * 25_000, [[7, 8]] * 24_999, "x").faults == []


@pytest.mark.parametrize("last", ["x", [7, 8], ["x"], [[7, 8]]])
def test_one_embedding_input_more_is_refused(last: Any) -> None:
    done = checked("/v1/embeddings", ["x"] * 50_000, last, "y")
    assert codes(done) == [("invalid_request", "body.input", 2)]
    assert done.faults[0].message == "The file has more than 50000 inputs; split it into several batches."


def test_half_a_character_hides_no_input() -> None:
    done = FileCheck("/v1/embeddings")
    done.feed(line("/v1/embeddings", input=["\ud83d"] * 50_001))
    done.finish()
    assert codes(done) == [("invalid_request", "body.input", 1)]


def test_other_endpoints_have_no_limit_of_inputs() -> None:
    assert checked("/v1/completions", ["x"] * 50_001).faults == []
