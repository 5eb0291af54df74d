"""Every error that a caller of the API can meet, and the one envelope they are told in.

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
from typing import Any


class NightshiftError(Exception):
    """An error with a public face. ``message`` is shown to the caller: never put a secret in it."""

    status = 500
    type = "server_error"
    default_code: str | None = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param

    def envelope(self) -> dict[str, Any]:
        """The body of the answer: ``{"error": {"message", "type", "param", "code"}}``."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        return {}


class BadRequestError(NightshiftError):
    status = 400
    type = "invalid_request_error"
    default_code = None


class InvalidFileError(BadRequestError):
    """The input file cannot become a batch.

    ``details`` holds ``{"code", "message", "param", "line"}`` for each thing wrong, ``line`` counted from 1.
    """

    def __init__(self, message: str, *, code: str, details: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message, code=code, param="input_file_id")
        self.details = list(details)

    def envelope(self) -> dict[str, Any]:
        body = super().envelope()
        body["error"]["details"] = self.details
        return body


class AuthenticationError(NightshiftError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class NotFoundError(NightshiftError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowedError(NightshiftError):
    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class ConflictError(NightshiftError):
    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class TooLargeError(NightshiftError):
    status = 413
    type = "invalid_request_error"
    default_code = "file_too_large"


class LimitExceededError(NightshiftError):
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
