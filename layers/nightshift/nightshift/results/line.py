"""The lines of the output file and of the error file, byte for byte as ``docs/contract.md`` describes them."""

import msgspec

from nightshift.core.ids import request_line_id
from nightshift.results.usage import Usage

_encode = msgspec.json.Encoder().encode

# The messages of lines that have no answer when their batch ends, by error code.
LEFTOVER_MESSAGES = {
    "batch_cancelled": "The batch was cancelled before this request was answered.",
    "batch_expired": "The batch's completion window ended before this request was answered.",
    "internal_error": "This request could not be processed.",
}


class OutputLine(msgspec.Struct, frozen=True):
    """A finished line: its number in the input (from 0), and its bytes without the newline.

    ``answered`` is True for a line of the output file and False for a line of the error file. ``by_batch`` is True
    where a provider's batch API has answered, at its own price.
    """

    number: int
    content: bytes
    answered: bool
    usage: Usage | None = None
    by_batch: bool = False

    @property
    def size(self) -> int:
        """The bytes of the line with its newline."""
        return len(self.content) + 1


def answered_line(
    batch_id: str, number: int, custom_id: str, status_code: int, request_id: str, body: bytes, usage: Usage | None
) -> OutputLine:
    """The line for an upstream's answer; ``body`` is one JSON document. A status 2xx belongs to the output file."""
    content = (b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null}') % (
        _encode(request_line_id(batch_id, number)),
        _encode(custom_id),
        status_code,
        _encode(request_id),
        # JSON allows line breaks between tokens only, so spaces in their place change no value and keep it one line.
        body.strip().replace(b"\n", b" ").replace(b"\r", b" "),
    )
    return OutputLine(number, _one_line(content), 200 <= status_code < 300, usage)


def failed_line(batch_id: str, number: int, custom_id: str | None, code: str, message: str) -> OutputLine:
    """The line, in the error file, for a request without an answer. The contract lists the possible ``code``s."""
    content = _encode(
        {
            "id": request_line_id(batch_id, number),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )
    return OutputLine(number, _one_line(content), False)


def _one_line(content: bytes) -> bytes:
    """``content``, JSON, as one line for every reader: ``str.splitlines`` breaks a line at these characters too.

    They stand in strings only, where their escapes have the same value.
    """
    if content.isascii():
        return content
    for character in ("\x85", "\u2028", "\u2029"):
        content = content.replace(character.encode(), b"\\u%04x" % ord(character))
    return content
