"""Multipart forms (RFC 7578), as many kinds of clients write them."""

import base64
import quopri
import re
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import TYPE_CHECKING

from msgspec import Struct, field

from nightshift.api.requests import body_bytes
from nightshift.core.errors import BadRequestError

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import APIGatewayRestResolver
    from python_multipart.multipart import MultipartCallbacks


# A form has a handful of parts. Each costs memory and time, however few bytes it has.
MAX_PARTS = 1_000
# Of all parts together. Reading parameters takes quadratic time.
MAX_HEADER_BYTES = 256 * 1024
# An error names so many of the parts.
_MAX_NAMES = 20
# Python reads no number of thousands of digits.
_SECONDS = re.compile(r"\d{1,18}", re.ASCII)
# What Python's email package raises for parameters that do not follow RFC 2231: a character set that is none, or
# pieces of which only some have a number.
_UNDECODABLE = (TypeError, ValueError)


class Form(Struct):
    """A multipart form: its text fields, and the bytes of its file, which need not have a name."""

    fields: dict[str, str]
    content: bytes
    filename: str | None


class _Part(Struct):
    headers: Message = field(default_factory=Message)
    content: bytearray = field(default_factory=bytearray)

    @property
    def name(self) -> str:
        return self._param("name") or ""

    @property
    def filename(self) -> str | None:
        """From ``filename*`` or ``filename``, quoted or not."""
        return self._param("filename")

    def _param(self, name: str) -> str | None:
        """A parameter of Content-Disposition as text that UTF-8 can encode.

        Raises:
            BadRequestError: the parameters do not follow RFC 2231.
        """
        try:
            value = self.headers.get_param(name, header="content-disposition")
            text = None if value is None else collapse_rfc2231_value(value)
        except _UNDECODABLE:
            raise _malformed("The Content-Disposition of a part cannot be decoded; send it as UTF-8.") from None
        return None if text is None else text.encode("utf-8", "replace").decode()

    def decoded(self) -> bytes:
        match str(self.headers.get("content-transfer-encoding", "")).strip().lower():
            case "base64":
                return base64.b64decode(self.content)
            case "quoted-printable":
                return quopri.decodestring(bytes(self.content))
        return bytes(self.content)


def nested(fields: dict[str, str]) -> dict[str, object]:
    """A form's fields with ``name[part]`` as objects, and numbers where a number is meant."""
    found: dict[str, object] = {}
    for name, value in fields.items():
        outer, bracket, rest = name.partition("[")
        if bracket and rest.endswith("]"):
            inner = found.setdefault(outer, {})
            if isinstance(inner, dict):
                inner[rest[:-1]] = int(value) if rest == "seconds]" and _SECONDS.fullmatch(value) else value
        else:
            found[name] = value
    return found


def parse_form(app: "APIGatewayRestResolver", file_part: str) -> Form:
    """The call's multipart body. The part named ``file_part`` is the file; the order of parts does not matter.

    Raises:
        BadRequestError: the body is not a well-formed multipart form, or has not one part named ``file_part``.
        TooLargeError: the body is over ``MAX_CALL_BYTES``.
    """
    content = body_bytes(app)
    boundary = _boundary(app.current_event.headers.get("content-type") or "")
    # What stands before the first boundary is a preamble, which readers ignore (RFC 2046, section 5.1.1). It may hold
    # the boundary's text, but not as a line.
    first = re.search(rb"(?:\A|\n)(?=--%b(?:--)?\r\n)" % re.escape(boundary), content)
    if first is None:
        raise _malformed("It has no line, ended by CRLF, with the boundary of the Content-Type header.")
    named = [(part.name, part) for part in _parts(content[first.end() :], boundary)]
    parts = dict(named)
    if sum(name == file_part for name, _ in named) > 1:
        raise _malformed(f"It has several parts of the name {file_part!r}; send one.", file_part)
    try:
        values = {name: part.decoded() for name, part in parts.items()}
    except ValueError:
        raise _malformed("A part does not have its Content-Transfer-Encoding.") from None
    if file_part not in parts:
        sent = ", ".join(sorted(name[:64] for name in parts)[:_MAX_NAMES]) or "none"
        message = (
            f"Missing required parameter: {file_part!r}. The form has no part of that name; its parts are: {sent}."
        )
        raise BadRequestError(message, code="missing_required_parameter", param=file_part)
    fields = {name: value.decode("utf-8", "replace") for name, value in values.items() if name != file_part}
    return Form(fields, values[file_part], parts[file_part].filename)


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    try:
        boundary = header.get_boundary() if header.get_content_type() == "multipart/form-data" else None
    except _UNDECODABLE:
        boundary = None
    if not boundary:
        raise _malformed("The Content-Type header must be multipart/form-data with a boundary.")
    return boundary.encode("utf-8", "replace")


def _parts(content: bytes, boundary: bytes) -> list[_Part]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, MultipartState

    parts: list[_Part] = []
    name, value = bytearray(), bytearray()
    header_bytes = 0

    def begin_part() -> None:
        if len(parts) == MAX_PARTS:
            raise _malformed(f"It has more than {MAX_PARTS} parts.")
        parts.append(_Part())

    def end_header() -> None:
        nonlocal header_bytes
        header_bytes += len(name) + len(value)
        if header_bytes > MAX_HEADER_BYTES:
            raise _malformed(f"The headers of its parts have more than {MAX_HEADER_BYTES} bytes.")
        parts[-1].headers[name.decode("latin-1")] = value.decode("utf-8", "replace")
        name.clear()
        value.clear()

    callbacks: MultipartCallbacks = {
        "on_part_begin": begin_part,
        "on_header_field": lambda data, start, end: name.extend(data[start:end]),
        "on_header_value": lambda data, start, end: value.extend(data[start:end]),
        "on_header_end": end_header,
        "on_part_data": lambda data, start, end: parts[-1].content.extend(data[start:end]),
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(content)
    except FormParserError as error:
        raise _malformed(f"It does not follow RFC 7578: {error}.") from None
    if parser.state not in (MultipartState.END, MultipartState.END_BOUNDARY):
        raise _malformed("The body ends before its last boundary.")
    return parts


def _malformed(why: str, param: str | None = None) -> BadRequestError:
    message = f"The request body is not a well-formed multipart form. {why}"
    return BadRequestError(message, code="invalid_body", param=param)
