"""Every error that a user of the command line is told about. None of them ends in a traceback.

CliError                 what was asked cannot be done; the message says why
├── UnreachableError     no answer came
└── ApiError             the API refused
"""

from collections.abc import Sequence
from typing import Any

from nightshift_cli import show


class CliError(Exception):
    """Ends the command with exit code 2 and ``lines`` on stderr: the message, then ``notes``."""

    def __init__(self, message: str, *, notes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.notes = list(notes)

    def lines(self) -> list[str]:
        return [f"Error: {show.plain(self)}", *(f"  {show.plain(note)}" for note in self.notes)]


class UnreachableError(CliError):
    pass


class ApiError(CliError):
    """A refusal by the API, as its error envelope tells it."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        details: Sequence[dict[str, Any]] = (),
        request_id: str | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.details = list(details)
        self.request_id = request_id
        self.retry_after = retry_after

    def lines(self) -> list[str]:
        known = {"HTTP": self.status, "code": self.code, "param": self.param, "request": self.request_id}
        told = ", ".join(f"{name} {show.plain(value)}" for name, value in known.items() if value is not None)
        return [*super().lines(), f"  ({told})", *show.file_errors(self.details)]
