"""The API's objects as JSON, with the fields that the command line reads."""

from typing import TypedDict


class Counts(TypedDict):
    total: int
    completed: int
    failed: int


class FileError(TypedDict):
    """One problem of an input file. ``line`` counts from 1, and is None for the whole file."""

    code: str
    message: str
    param: str | None
    line: int | None


class Errors(TypedDict):
    data: list[FileError]


class Batch(TypedDict):
    id: str
    status: str
    model: str | None
    created_at: int
    output_file_id: str | None
    error_file_id: str | None
    request_counts: Counts | None
    errors: Errors | None


class Attempt(TypedDict):
    attempted_at: int
    status_code: int | None
    error: str | None


class Delivery(TypedDict):
    next_attempt_at: int | None
    attempts: list[Attempt]


class Visit(TypedDict):
    """A worker's visit at a chunk. The requests that were sent again or refused are counted among those sent."""

    chunk: int
    attempt: int
    began_at: float
    ended_at: float | None
    outcome: str
    waits_until: float | None
    waits_for: str | None
    requests_sent: int
    requests_retried: int
    requests_refused: int


class BatchPage(TypedDict):
    data: list[Batch]


class File(TypedDict):
    id: str


class Upload(TypedDict):
    id: str
    created_at: int
    expires_at: int


class Webhook(TypedDict):
    secret: str
