"""Every error has one envelope, the status of the contract and nothing secret."""

from collections.abc import Iterator

import pytest
from nightshift.core import errors
from nightshift.core.errors import BadRequestError, InvalidFileError, LimitExceededError, NightshiftError


def all_errors(base: type[NightshiftError] = NightshiftError) -> Iterator[type[NightshiftError]]:
    yield base
    for kind in base.__subclasses__():
        yield from all_errors(kind)


STATUSES = {
    "NightshiftError": 500,
    "BadRequestError": 400,
    "InvalidFileError": 400,
    "AuthenticationError": 401,
    "NotFoundError": 404,
    "MethodNotAllowedError": 405,
    "ConflictError": 409,
    "TooLargeError": 413,
    "LimitExceededError": 429,
    "UnavailableError": 503,
}


def make(kind: type[NightshiftError]) -> NightshiftError:
    if issubclass(kind, LimitExceededError):
        return kind("Words.", retry_after=7)
    return kind("Words.", code="some_code") if issubclass(kind, InvalidFileError) else kind("Words.")


def test_every_error_has_the_status_of_the_contract() -> None:
    assert {kind.__name__: kind.status for kind in all_errors()} == STATUSES


def test_every_error_is_in_the_tree_at_the_top_of_the_module() -> None:
    assert errors.__doc__ is not None
    for kind in all_errors():
        assert kind.__name__ in errors.__doc__
        assert kind is NightshiftError or f" {kind.status}" in errors.__doc__


@pytest.mark.parametrize("kind", list(all_errors()))
def test_an_envelope_has_all_four_keys(kind: type[NightshiftError]) -> None:
    error = make(kind).envelope()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["message"] == "Words."
    assert error["type"] == {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
        kind.status, "invalid_request_error"
    )


def test_code_and_param_say_what_and_where() -> None:
    error = BadRequestError("Words.", code="invalid_value", param="limit").envelope()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "limit")
    assert BadRequestError("Words.").envelope()["error"]["code"] is None


def test_a_file_error_carries_every_wrong_line() -> None:
    details = [{"code": "invalid_url", "message": "m", "param": "url", "line": 3}]
    error = InvalidFileError("Words.", code="batch_invalid_jsonl", details=details).envelope()["error"]
    assert error == {
        "message": "Words.",
        "type": "invalid_request_error",
        "param": "input_file_id",
        "code": "batch_invalid_jsonl",
        "details": details,
    }


def test_a_limit_says_when_to_come_back() -> None:
    limited = LimitExceededError("Words.", retry_after=7)
    assert limited.headers() == {"Retry-After": "7"}
    assert limited.envelope()["error"]["code"] == "quota_exceeded"


def test_every_error_is_raised_with_its_message() -> None:
    assert str(BadRequestError("Words.")) == "Words."
