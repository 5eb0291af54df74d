"""Every error that a caller of the API can meet.

NightshiftError
├── BadRequestError            400
│   └── InvalidFileError       400, carries every wrong line
├── AuthenticationError        401
├── NotFoundError              404
├── MethodNotAllowedError      405
├── ConflictError              409
├── TooLargeError              413
├── LimitExceededError         429, carries seconds to wait
└── UnavailableError           503
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct


class Fault(Struct, frozen=True):
    """One thing wrong with an input file or with a batch."""

    code: str
    message: str
    param: str | None = None
    line: Annotated[int | None, Meta(description="Counted from 1; null for a fault of the whole file.")] = None


class NightshiftError(Exception):
    """An error that callers see. ``message`` must hold no secret."""

    status = 500
    type = "server_error"
    default_code: str | None = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param

    def headers(self) -> dict[str, str]:
        """Headers that the response carries besides the usual ones."""
        return {}


class BadRequestError(NightshiftError):
    status = 400
    type = "invalid_request_error"
    default_code = None


class InvalidFileError(BadRequestError):
    """The input file has faults, so that no batch can be made of it.

    ``details`` holds each fault.
    """

    def __init__(self, message: str, *, code: str, details: Sequence[Fault] = ()) -> None:
        super().__init__(message, code=code, param="input_file_id")
        self.details = list(details)


class AuthenticationError(NightshiftError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class NotFoundError(NightshiftError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowedError(NightshiftError):
    """The path exists, and does not support the method."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"{method} is not allowed for {path}. Supported methods are: {self.allowed}.")

    def headers(self) -> dict[str, str]:
        return {"Allow": self.allowed}


class ConflictError(NightshiftError):
    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class TooLargeError(NightshiftError):
    status = 413
    type = "invalid_request_error"
    default_code = "file_too_large"


class LimitExceededError(NightshiftError):
    """The account is at one of its limits. The call can be repeated after ``retry_after`` seconds."""

    status = 429
    type = "rate_limit_error"
    default_code = "quota_exceeded"

    def __init__(self, message: str, *, retry_after: int, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)}


class UnavailableError(NightshiftError):
    status = 503
    default_code = "service_unavailable"
