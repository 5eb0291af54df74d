"""What an upstream's answer means for the line that asked: done, try again, or not now.

"Not now" (429, 503, no connection) is no fault of the request: it is asked again until the batch's deadline.
"Try again" (408, most 5xx, timeouts, resets, garbage) may be: after ``MAX_TRIES`` the last answer is the line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from nightshift.core.json_tokens import too_deep

MAX_TRIES = 5
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# What the upstream says of itself, and will say again.
_NEVER = (501, 505)

Verdict = Literal["final", "retry", "not_now"]
Failure = Literal["timeout", "connect", "broken", "too_long", "not_json"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request: either a status with a body, or a ``failure`` without either."""

    status: int = 0
    body: bytes = b""
    request_id: str | None = None
    retry_after: float | None = None
    failure: Failure | None = None


# Codes and words for a line whose last try had no usable answer.
FAILURES: dict[Failure, tuple[str, str]] = {
    "timeout": ("request_timeout", "The upstream did not answer in time."),
    "connect": ("upstream_unreachable", "The upstream could not be reached."),
    "broken": ("upstream_unreachable", "The connection to the upstream broke before its answer was whole."),
    "too_long": ("upstream_unreachable", f"The upstream's answer was longer than {MAX_ANSWER_BYTES} bytes."),
    "not_json": ("upstream_unreachable", "The upstream's answer was not a JSON object."),
}


def judge(answer: Answer, tries: int) -> Verdict:
    """What ``answer`` means for a line that was sent ``tries`` times, "not now" not counted."""
    if answer.failure == "connect" or answer.status in (429, 503):
        return "not_now"
    if answer.failure == "too_long":
        return "final"
    if answer.failure is not None or answer.status == 408 or (answer.status >= 500 and answer.status not in _NEVER):
        return "retry" if tries < MAX_TRIES else "final"
    return "final"


class _Object(msgspec.Struct):
    """Any object: its fields are checked, and not kept."""


_decode_object = msgspec.json.Decoder(_Object).decode


def is_json_object(body: bytes) -> bool:
    """Whether ``body`` can stand in an output line as an upstream's answer."""
    if too_deep(body):
        return False
    try:
        if not body.isascii():
            body.decode()
        _decode_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


# Each escape of a JSON string, in order: a surrogate pair, half of one, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def without_lone_surrogates(body: bytes) -> bytes:
    """``body`` with U+FFFD for each half of a surrogate pair, which no UTF-8 can hold. Upstreams that cut a text in the
    middle of an emoji send such."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    mended = bytearray(body)
    for escape in _ESCAPE.finditer(body):
        if escape[1]:
            mended[escape.start() : escape.end()] = rb"\ufffd"
    return bytes(mended)


def error_body(status: int, body: bytes) -> bytes:
    """An error answer that is no JSON object (a proxy's page, say) as one; its text is cut at 1,000 characters."""
    text = body[:4000].decode("utf-8", "replace")[:1000].strip()
    message = text or f"The upstream answered {status} without a body."
    return msgspec.json.encode({"error": {"message": message, "type": "upstream_error", "param": None, "code": None}})


def request_id(headers: Mapping[str, str]) -> str | None:
    """The upstream's own id of the request, where it is one that can be written down."""
    given = headers.get("x-request-id") or ""
    return given if given.isascii() and given.isprintable() and 0 < len(given) <= 256 else None
