"""What a legal input file is: each line checked, each fault named with its line, and the plan's line offsets kept.

The codes are those that OpenAI records in a failed batch's ``errors``; CONTRACT "Create batch" lists them.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from nightshift.core.errors import Fault, InvalidFileError
from nightshift.core.json_tokens import MAX_DEPTH, too_deep

MAX_LINES = 50_000
MAX_FILE_BYTES = 200 * 1024 * 1024
MAX_LINE_BYTES = 2 * 1024 * 1024
MAX_FAULTS = 100
ENDPOINT = "/v1/chat/completions"

_BOM = b"\xef\xbb\xbf"


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _Body


_decode_line = msgspec.json.Decoder(_Line).decode


# The same where the messages are objects, as nearly always: what they say is found without being looked at.
class _Message(msgspec.Struct):
    content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _ChatBody(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None


class _ChatLine(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _ChatBody


_decode_chat = msgspec.json.Decoder(_ChatLine).decode
# What else is in a line is not looked at: it may hold numbers that no program here could.
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = msgspec.Raw(b"null")
_OTHER = object()


class FileCheck:
    """Checks a file handed over in blocks of any size, in memory bounded by one block and one line.

    After ``finish()``: ``faults`` (at most ``MAX_FAULTS``; ``stopped`` says that the rest was not looked at),
    ``model`` (the one that line 1 names, or the first that can) and ``ends`` (the byte offset at which each
    line ends, its newline included). ``verdict()`` says whether the file is legal.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.model: str | None = None
        self.ends: list[int] = []
        self.stopped = False
        self._rest = b""
        self._offset = 0
        self._seen: set[str | bytes] = set()
        self._model_line = 0
        self._strangers = 0  # faults that say no more than "another model"

    @property
    def lines(self) -> int:
        """How many lines were read."""
        return len(self.ends)

    def feed(self, block: bytes) -> None:
        """Take the next ``block`` of the file's bytes."""
        if self.stopped:
            return
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._take(line, 1)
            if self.stopped:
                return
        # A line that is too long already need not be held to its end.
        self._rest = self._rest[: MAX_LINE_BYTES + 1]

    def finish(self) -> None:
        """Say that the file has ended. A last line without a newline counts; an empty rest does not."""
        if self._rest and not self.stopped:
            self._take(self._rest, 0)
        self._rest = b""
        if not self.ends and not self.faults:
            self.faults.append(Fault("invalid_request", "The file is empty."))

    def verdict(self) -> str:
        """The file's one model, after ``finish()``.

        Raises:
            InvalidFileError: ``batch_invalid_jsonl`` or ``batch_multiple_models``, with all that is wrong.
        """
        if self.model is not None and not self.faults:
            return self.model
        code, what = "batch_invalid_jsonl", "The input file is not a valid batch file"
        if len(self.faults) == self._strangers:
            code, what = "batch_multiple_models", "A batch has one model, and the input file names several"
        first = self.faults[0]
        where = "" if first.line is None else f"Line {first.line}: "
        shown = f"at least {MAX_FAULTS}" if self.stopped and len(self.faults) == MAX_FAULTS else f"{len(self.faults)}"
        more = "" if len(self.faults) == 1 else f" There are {shown} problems in all, see error.details."
        raise InvalidFileError(
            f"{what}. {where}{first.message}{more}",
            code=code,
            details=self.faults,
        )

    def _take(self, line: bytes, newline: int) -> None:
        number = len(self.ends) + 1
        if number > MAX_LINES:
            self.faults.append(Fault("invalid_request", f"The file has more than {MAX_LINES} lines.", None, number))
            self.stopped = True
            return
        self._offset += len(line) + newline
        self.ends.append(self._offset)
        if len(line) > MAX_LINE_BYTES:
            self._fault(number, "line_too_long", _TOO_LONG, None)
            return
        try:
            # msgspec does not look at the UTF-8 of what it skips (MEASURED.md), so it is checked here.
            if not line.isascii():
                line.decode()
            parsed = _parse(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._explain(number, line)
            return
        body = parsed.body
        legal = parsed.method == "POST" and parsed.url == ENDPOINT and not body.stream
        if legal and parsed.custom_id and body.model and body.messages:
            self._remember(number, parsed.custom_id, body.model)
        else:
            self._explain(number, line)

    def _remember(self, number: int, custom_id: str | None, model: str | None) -> None:
        if custom_id is not None:
            # Long ids are kept as digests, so that hostile ones cannot fill the memory.
            key = custom_id if len(custom_id) <= 64 else hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
            if key in self._seen:
                message = f"The custom_id {_quote(custom_id)} is used by an earlier line."
                self._fault(number, "duplicate_custom_id", message, "custom_id")
            self._seen.add(key)
        if model is not None and self.model is None:
            self.model, self._model_line = model, number
        elif model != self.model and model is not None:
            first = f"{_quote(self.model or '')} of line {self._model_line}"
            if self._fault(number, "invalid_request", f"The model {_quote(model)} differs from {first}.", "body.model"):
                self._strangers += 1

    def _explain(self, number: int, line: bytes) -> None:
        """Slow path: the line is wrong somewhere; say everything that is."""
        faults, custom_id, model = _faults_of(number, line)
        # What the fast path refuses is wrong, even if this path could not say why.
        for code, message, param in faults or [("invalid_json_line", "The line is not a valid request.", None)]:
            self._fault(number, code, message, param)
        self._remember(number, custom_id, model)

    def _fault(self, number: int, code: str, message: str, param: str | None) -> bool:
        """Note a fault; False where there is no room for it."""
        if len(self.faults) == MAX_FAULTS:
            return False
        self.faults.append(Fault(code, message, param, number))
        self.stopped = self.stopped or len(self.faults) == MAX_FAULTS
        return True


def _parse(line: bytes) -> _ChatLine | _Line:
    """The fields that are looked at.

    Raises:
        msgspec.DecodeError: the line is not what a line is, or nested too deep.
    """
    parsed: _ChatLine | _Line
    outside = len(line)  # of the messages' texts
    try:
        parsed = chat = _decode_chat(line)
    except msgspec.ValidationError:
        parsed = _decode_line(line)
    else:
        for message in chat.body.messages:
            if message.content is not msgspec.UNSET:
                content = memoryview(message.content)
                if content[0] == _QUOTE:
                    outside -= content.nbytes
    # A level takes two bytes at least. To count brackets takes as long as to parse, so it is done where it must be.
    if outside > 2 * MAX_DEPTH and too_deep(line):
        raise msgspec.DecodeError("nested too deep")
    return parsed


_QUOTE = ord('"')
_TOO_LONG = f"The line is longer than {MAX_LINE_BYTES} bytes."


def _faults_of(number: int, line: bytes) -> tuple[list[tuple[str, str, str | None]], str | None, str | None]:
    """All faults of one line that its own bytes show, then its custom_id and model where they are usable."""
    if number == 1 and line.startswith(_BOM):
        return [("invalid_json_line", "The file starts with a byte order mark; save it without one.", None)], None, None
    if too_deep(line):
        return [("invalid_json_line", f"The line is nested deeper than {MAX_DEPTH} levels.", None)], None, None
    try:
        line.decode()
        fields = _decode_object(line)
    except UnicodeDecodeError:
        return [("invalid_json_line", "The line is not valid UTF-8.", None)], None, None
    except msgspec.ValidationError:
        return [("invalid_json_line", "The line is not a JSON object.", None)], None, None
    except msgspec.DecodeError as error:
        reason = "it is blank" if not line.strip() else str(error)
        return [("invalid_json_line", f"The line is not valid JSON: {reason}.", None)], None, None
    custom_id, method, url = (_scalar(fields.get(name)) for name in ("custom_id", "method", "url"))
    body = fields.get("body", _NULL)
    faults: list[tuple[str, str, str | None]] = [
        ("missing_required_parameter", f"The field {name} is missing.", name)
        for name in ("custom_id", "method", "url", "body")
        if bytes(fields.get(name, _NULL)) == b"null"
    ]
    if custom_id is not None and (not isinstance(custom_id, str) or not custom_id):
        faults.append(("invalid_request", "The field custom_id must be a string that is not empty.", "custom_id"))
        custom_id = None
    if method is not None and method != "POST":
        faults.append(("invalid_method", "The method must be POST.", "method"))
    if url is not None and url != ENDPOINT:
        faults.append(("invalid_url", f"The url must be {ENDPOINT}.", "url"))
    if bytes(body) == b"null":
        return faults, custom_id, None
    try:
        inside = _decode_object(body)
    except msgspec.DecodeError:
        faults.append(("invalid_request", "The field body must be an object.", "body"))
        return faults, custom_id, None
    model = _scalar(inside.get("model"))
    if not isinstance(model, str) or not model:
        faults.append(("invalid_request", "The field body.model must be a string that is not empty.", "body.model"))
        model = None
    messages = bytes(inside.get("messages", _NULL))
    if not messages.startswith(b"[") or not messages[1:-1].strip():
        message = "The field body.messages must be an array that is not empty."
        faults.append(("invalid_request", message, "body.messages"))
    if bytes(inside.get("stream", _NULL)) not in (b"null", b"false"):
        faults.append(("streaming_unsupported", "A batch cannot stream; leave body.stream out.", "body.stream"))
    return faults, custom_id, model


def _scalar(value: msgspec.Raw | None) -> Any:
    """A field's value where it is a string, null or absent; anything that is neither otherwise."""
    if value is None or bytes(value) == b"null":
        return None
    return msgspec.json.decode(value) if bytes(value).startswith(b'"') else _OTHER


def _quote(text: str) -> str:
    """A caller's text for a message: short, and safe to print."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


class Request(msgspec.Struct, frozen=True):
    """One line of a checked file. ``body`` is the caller's own bytes."""

    custom_id: str
    body: msgspec.Raw


_decode_request = msgspec.json.Decoder(Request).decode


def requests(block: bytes) -> Iterator[Request]:
    """The requests of a block of whole lines that passed ``FileCheck``, in order."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return map(_decode_request, lines)
