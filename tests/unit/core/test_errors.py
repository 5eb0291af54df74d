"""Every error has the status of docs/contract.md, and the headers that go with it."""

from collections.abc import Iterator

from nightshift.core import errors
from nightshift.core.errors import (
    BadRequestError,
    InvalidFileError,
    LimitExceededError,
    MethodNotAllowedError,
    NightshiftError,
)


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
    if issubclass(kind, MethodNotAllowedError):
        return kind("PUT", "/models", ["GET"])
    return kind("Words.", code="some_code") if issubclass(kind, InvalidFileError) else kind("Words.")


def test_every_error_has_its_status() -> None:
    assert {kind.__name__: kind.status for kind in all_errors()} == STATUSES


def test_every_error_is_in_the_modules_tree() -> None:
    assert errors.__doc__ is not None
    for kind in all_errors():
        assert kind.__name__ in errors.__doc__
        assert kind is NightshiftError or f" {kind.status}" in errors.__doc__


def test_a_limit_error_has_retry_after() -> None:
    limited = LimitExceededError("Words.", retry_after=7)
    assert (limited.headers(), limited.code) == ({"Retry-After": "7"}, "quota_exceeded")


def test_a_wrong_method_lists_the_right_ones() -> None:
    error = MethodNotAllowedError("PUT", "/models", ["DELETE", "GET"])
    assert error.message == "PUT is not allowed for /models. Supported methods are: DELETE, GET."
    assert error.headers() == {"Allow": "DELETE, GET"}


def test_an_error_is_raised_with_its_message() -> None:
    assert str(BadRequestError("Words.")) == "Words."
