"""What an upstream's answer means for its line: it is final, it is retried, or the upstream cannot take it now.

A refusal ("not now": 429, 503, no connection) does not depend on the request, so the line is sent again until the
batch's deadline. A failure ("retry": 408, most 5xx, timeouts, resets, invalid bodies) may depend on it, so after
``MAX_TRIES`` the last answer is final.
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from nightshift.core.json_tokens import too_deep

MAX_TRIES = 5
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# 501 and 505 describe the server, so a retry cannot help.
_NEVER_RETRIED = (501, 505)

Verdict = Literal["final", "retry", "not_now"]
Failure = Literal["timeout", "connect", "dns", "tls", "broken", "too_long", "not_json"]


class Answer(msgspec.Struct, frozen=True):
    """The answer to one request: a status with a body, or a ``failure`` with neither.

    ``retry_after`` is in seconds. ``reset_after`` is too, and counts from when the request was sent: the upstream had
    nothing left for other requests then, and says when it will.
    """

    status: int = 0
    body: bytes = b""
    request_id: str | None = None
    retry_after: float | None = None
    failure: Failure | None = None
    reset_after: float | None = None


# Code and message of a line whose last try failed.
FAILURES: dict[Failure, tuple[str, str]] = {
    "timeout": ("request_timeout", "The upstream did not answer in time."),
    "connect": ("upstream_unreachable", "The upstream could not be reached."),
    "dns": ("upstream_unreachable", "The name of the upstream's host could not be resolved."),
    "tls": ("upstream_unreachable", "The upstream's certificate was not accepted, or it does not speak TLS."),
    "broken": ("upstream_unreachable", "The connection to the upstream broke before the answer was complete."),
    "too_long": ("upstream_unreachable", f"The upstream's answer was longer than {MAX_ANSWER_BYTES} bytes."),
    "not_json": ("upstream_unreachable", "The upstream's answer was not a JSON object."),
}


def judge(answer: Answer, tries: int) -> Verdict:
    """What ``answer`` means for a line that was tried ``tries`` times, this time included and refusals not included."""
    if answer.failure in ("connect", "dns", "tls") or answer.status in (429, 503):
        return "not_now"
    if answer.failure == "too_long":
        return "final"
    may_pass = answer.status == 408 or (answer.status >= 500 and answer.status not in _NEVER_RETRIED)
    if answer.failure is None and not may_pass:
        return "final"
    return "retry" if tries < MAX_TRIES else "final"


class _Object(msgspec.Struct):
    """Any JSON object: its fields are checked and not decoded into values."""


_decode_object = msgspec.json.Decoder(_Object).decode


def is_json_object(body: bytes) -> bool:
    """Whether ``body`` is one JSON object in UTF-8 that is not nested too deeply, as in output lines."""
    if too_deep(body):
        return False
    try:
        if not body.isascii():
            body.decode()
        _decode_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


# The fields that hold a result, of all endpoints.
_RESULTS = ("choices", "output", "data", "results")
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = b"null"
_ERROR_STATUS = re.compile(rb'"?([45]\d\d)"?')


def status_of(status: int, body: bytes) -> int:
    """The status that ``body``, a JSON object, deserves: some upstreams answer 200 with an error and no result.

    OpenRouter puts the status into ``error.code``, a number or digits; without one it is 502.
    """
    if not 200 <= status < 300 or b'"error"' not in body:
        return status
    fields = _decode_fields(body)
    error = bytes(fields.get("error", _NULL))
    if error == _NULL or any(bytes(fields.get(name, _NULL)) != _NULL for name in _RESULTS):
        return status
    code = bytes(_decode_fields(error).get("code", _NULL)) if error.startswith(b"{") else _NULL
    found = _ERROR_STATUS.fullmatch(code)
    return int(found[1]) if found else 502


def error_body(status: int, body: bytes) -> bytes:
    """A JSON object for an error answer that is none, such as a proxy's page. Its text is cut at 1,000 characters."""
    text = body[:4000].decode("utf-8", "replace")[:1000].strip()
    message = text or f"The upstream answered {status} without a body."
    return msgspec.json.encode({"error": {"message": message, "type": "upstream_error", "param": None, "code": None}})


class _Error(msgspec.Struct):
    message: str = ""


class _WithError(msgspec.Struct):
    error: _Error | str = ""


def error_words(body: bytes) -> str:
    """The upstream's own words for an error; all of a body that has another form, cut at 1,000 characters."""
    try:
        error = msgspec.json.decode(body, type=_WithError).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:1000].decode("utf-8", "replace")
    return error.message if isinstance(error, _Error) else error


def request_id(headers: Mapping[str, str]) -> str | None:
    """The upstream's id of the request; None if it is missing, too long, or not printable ASCII."""
    given = headers.get("x-request-id") or ""
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 256 else None
