"""Every error that the command line shows to its user, without a traceback.

CliError                 the command failed; the message has the reason
├── UnreachableError     the API did not answer
└── ApiError             the API refused the call
"""

from collections.abc import Sequence

from nightshift_cli import show
from nightshift_cli.resources import FileError


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
    """A refusal by the API, with the fields of its error envelope. ``retry_after`` is in seconds."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        details: Sequence[FileError] = (),
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
        fields = {"HTTP": self.status, "code": self.code, "param": self.param, "request": self.request_id}
        known = ", ".join(f"{name} {show.plain(value)}" for name, value in fields.items() if value is not None)
        return [*super().lines(), f"  ({known})", *show.file_errors(self.details)]
