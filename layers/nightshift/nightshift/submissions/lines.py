"""The lines of a provider's batch files: those that are sent, and those that come back.

A line is named by its number in the caller's file: the caller's own ``custom_id`` may be longer or stranger than the
provider takes.
"""

import re

import msgspec

from nightshift.core.surrogates import without_lone_surrogates
from nightshift.upstream.answer import Answer, error_body, is_json_object, status_of

_encode = msgspec.json.Encoder().encode

# Errors of lines that the provider did not work on: its batch ended before.
_NOT_REACHED = frozenset({"batch_expired", "batch_cancelled", "batch_canceled"})
# A status of a line that says something of the moment or of the route, and not of the line.
_AGAIN = frozenset({401, 402, 403, 404, 408, 409, 425, 429})
# A number as ``request_line`` writes it. "00" is a line that the provider made up, and not the first one.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class _Response(msgspec.Struct):
    status_code: int = 0
    request_id: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | str | None = None


_decode = msgspec.json.Decoder(_Line).decode


class LineAnswer(msgspec.Struct, frozen=True):
    """What the provider answered to the line ``number``: an ``answer``, or the words of an ``error`` in its place."""

    number: int
    answer: Answer | None = None
    error: str = ""
    error_code: str = "upstream_unreachable"

    @property
    def final(self) -> bool:
        """Whether sending the line again could not change it."""
        if self.answer is None or self.answer.failure is not None:
            return False
        return self.answer.status < 500 and self.answer.status not in _AGAIN


def request_line(number: int, body: bytes, endpoint: str) -> bytes:
    """A line of the input file, with its newline; ``body`` is the request as the upstream gets it."""
    return b'{"custom_id":"%d","method":"POST","url":%b,"body":%b}\n' % (number, _encode(endpoint), body)


def read_answer(content: bytes) -> LineAnswer | None:
    """The answer on a line of an output or error file; None for a line that is none of ours or tells of no answer."""
    line = _read(content)
    if line is None or not _NUMBER.fullmatch(line.custom_id):
        return None
    number = int(line.custom_id)
    if line.response is not None and line.response.status_code:
        return LineAnswer(number, _answer(line.response))
    if line.error is None:
        return None
    error = line.error if isinstance(line.error, _Error) else _Error(message=line.error)
    if error.code in _NOT_REACHED:
        return None
    words = " ".join((error.message or error.code or "").split())[:1000]
    code = "request_timeout" if error.code == "request_timeout" else "upstream_unreachable"
    return LineAnswer(number, error=words or "The provider could not answer this request.", error_code=code)


def _read(content: bytes) -> _Line | None:
    for form in (content, without_lone_surrogates(content)):
        try:
            return _decode(form)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def _answer(response: _Response) -> Answer:
    status, body = response.status_code, bytes(response.body)
    if not is_json_object(body):
        body = without_lone_surrogates(body)
    if not is_json_object(body):
        if 200 <= status < 300:
            return Answer(failure="not_json")
        body = error_body(status, body)
    given = response.request_id or ""
    request_id = given if given.isascii() and given.isprintable() and 0 < len(given) <= 256 else None
    return Answer(status_of(status, body), body, request_id)
