"""What a provider's batch API answers, as OpenAI documents it, read leniently: other providers vary it.

Sources: https://platform.openai.com/docs/api-reference/batch and .../files. Together writes statuses in upper case,
Gemini's ids have a slash, and some leave out what is null.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

# A status that is not listed here is one of a batch that runs.
Status = Literal["validating", "running", "completed", "failed", "expired", "cancelled"]
_STATUSES: dict[str, Status] = {
    "validating": "validating",
    "queued": "validating",
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
ENDED: frozenset[Status] = frozenset({"completed", "failed", "expired", "cancelled"})

# An id becomes a part of a URL's path.
_ID = re.compile(r"[\w.:-]+(/[\w.:-]+)*", re.ASCII)
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class ProviderError(Exception):
    """A call to the provider failed. ``status`` is 0 where no answer was received; ``retry_after`` is in seconds.

    The message holds the provider's own words, of at most 500 characters. ``errors`` are what it found wrong in the
    lines of a batch that it refused to create.
    """

    def __init__(
        self, status: int, message: str, retry_after: float | None = None, errors: Sequence["LineError"] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.errors = errors

    @property
    def refused(self) -> bool:
        """Whether the provider certainly did nothing: it answered, and not with an error of its own."""
        return 400 <= self.status < 500 and self.status != 408


class LineError(msgspec.Struct, frozen=True):
    """Why the provider refused a batch; ``line`` is the number, from 1, of the line that is wrong, if it is one."""

    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None


class _Errors(msgspec.Struct):
    data: list[LineError] = []


class _Counts(msgspec.Struct):
    total: _Count = 0
    completed: _Count = 0
    failed: _Count = 0


class _Batch(msgspec.Struct):
    id: str
    status: str
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    request_counts: _Counts | None = None
    in_progress_at: int | None = None
    metadata: dict[str, str] | None = None


class ProviderBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of the provider, as far as it matters here."""

    id: str
    status: Status
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: list[LineError] = []
    completed: int = 0
    failed: int = 0
    in_progress_at: int | None = None
    name: str | None = None  # what our metadata calls it

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class _Page(msgspec.Struct):
    data: list[msgspec.Raw] = []
    has_more: bool | None = None


class _Named(msgspec.Struct):
    id: str
    filename: str | None = None


class _Upload(msgspec.Struct):
    file: _Named


# The field of a provider's metadata that holds our name of a submission.
NAME_FIELD = "nightshift"


def read_batch(content: bytes) -> ProviderBatch:
    """A batch from JSON.

    Raises:
        ProviderError: it is not a batch.
    """
    try:
        found = msgspec.json.decode(content, type=_Batch, strict=False)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProviderError(0, "The provider's answer is not a batch.") from None
    counts = found.request_counts or _Counts()
    return ProviderBatch(
        id=checked_id(found.id),
        status=_STATUSES.get(found.status.lower(), "running"),
        input_file_id=found.input_file_id,
        output_file_id=found.output_file_id and checked_id(found.output_file_id),
        error_file_id=found.error_file_id and checked_id(found.error_file_id),
        errors=found.errors.data if found.errors else [],
        completed=counts.completed,
        failed=counts.failed,
        in_progress_at=found.in_progress_at,
        name=(found.metadata or {}).get(NAME_FIELD),
    )


def read_batches(content: bytes) -> tuple[list[ProviderBatch], bool]:
    """The batches of a page, and whether there are more. An entry that is not a batch is left out.

    Raises:
        ProviderError: it is not a page.
    """
    entries, more = _read_page(content)
    found = []
    for entry in entries:
        try:
            found.append(read_batch(entry))
        except ProviderError:
            continue
    return found, more


def read_file_id(content: bytes) -> str:
    """The id of a file, an upload or a part from JSON.

    Raises:
        ProviderError: it is none.
    """
    return checked_id(_named(content).id)


def read_upload(content: bytes) -> str:
    """The id of the file that a completed upload has become.

    Raises:
        ProviderError: it has become none.
    """
    try:
        return checked_id(msgspec.json.decode(content, type=_Upload).file.id)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProviderError(0, "The provider's answer is not a completed upload.") from None


def read_files(content: bytes) -> tuple[list[tuple[str, str | None]], bool]:
    """Id and name of each file of a page, and whether there are more.

    Raises:
        ProviderError: it is not a page of files.
    """
    entries, more = _read_page(content)
    return [(checked_id(one.id), one.filename) for one in map(_named, entries)], more


def _named(content: bytes) -> _Named:
    try:
        return msgspec.json.decode(content, type=_Named)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProviderError(0, "The provider's answer has no id.") from None


def _read_page(content: bytes) -> tuple[list[bytes], bool]:
    try:
        page = msgspec.json.decode(content, type=_Page)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProviderError(0, "The provider's answer is not a list.") from None
    return [bytes(entry) for entry in page.data], bool(page.has_more and page.data)


def checked_id(given: str) -> str:
    """``given``, if it can be a part of a URL's path.

    Raises:
        ProviderError: it cannot.
    """
    if len(given) > 512 or not _ID.fullmatch(given) or {".", ".."} & set(given.split("/")):
        raise ProviderError(0, "The provider's answer has an id that cannot be used.")
    return given


class _Error(msgspec.Struct):
    message: str | None = None
    code: str | None = None
    details: list[LineError] | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error | str | None = None


def failure(status: int, content: bytes, retry_after: float | None) -> ProviderError:
    """The error that an answer with an error status tells of."""
    try:
        error = msgspec.json.decode(content, type=_ErrorBody, strict=False).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        error = content[:2000].decode("utf-8", "replace")
    known = error if isinstance(error, _Error) else _Error(message=error)
    words = " ".join((known.message or "").split())[:500]
    message = words or f"The provider answered {status} without a message."
    errors = known.details or ([LineError(code=known.code, message=message)] if known.code else [])
    return ProviderError(status, message, retry_after, errors)
