"""The lines of the output and error files, byte for byte as CONTRACT "Output and error files" says."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from nightshift.core.ids import request_line_id
from nightshift.core.json_tokens import TOKEN

_encode = msgspec.json.Encoder().encode


class Usage(msgspec.Struct, array_like=True):
    """Tokens, summed over lines."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0

    def add(self, other: "Usage") -> None:
        self.input_tokens += other.input_tokens
        self.cached_tokens += other.cached_tokens
        self.output_tokens += other.output_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.total_tokens += other.total_tokens

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's shape of a batch's ``usage``."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.total_tokens,
        }


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One finished line: its number in the input (from 0), its bytes without the newline, and where it goes."""

    line: int
    content: bytes
    answered: bool  # True: the output file; False: the error file
    usage: Usage | None = None

    @property
    def size(self) -> int:
        """Its bytes with the newline."""
        return len(self.content) + 1


def answered_line(
    batch_id: str, line: int, custom_id: str, status_code: int, request_id: str, body: bytes, usage: Usage | None
) -> OutputLine:
    """A line with the upstream's answer; ``body`` is one JSON document. Status 2xx goes to the output file."""
    content = (b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":%b},"error":null}') % (
        _encode(request_line_id(batch_id, line)),
        _encode(custom_id),
        status_code,
        _encode(request_id),
        # Line breaks in JSON stand only between tokens: as spaces they mean the same, and the line stays one line.
        body.strip().replace(b"\n", b" ").replace(b"\r", b" "),
    )
    return OutputLine(line, content, 200 <= status_code < 300, usage)


def failed_line(batch_id: str, line: int, custom_id: str | None, code: str, message: str) -> OutputLine:
    """A line that got no answer, for the error file. ``code`` is one that the contract lists."""
    content = _encode(
        {
            "id": request_line_id(batch_id, line),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )
    return OutputLine(line, content, False)


# Why a line has no answer, for the lines that a batch's end leaves over.
LEFTOVER_MESSAGES = {
    "batch_cancelled": "The batch was cancelled before this request was answered.",
    "batch_expired": "The batch's completion window ended before this request was answered.",
    "internal_error": "This request could not be processed.",
}


class _Modelled(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_modelled = msgspec.json.Decoder(_Modelled).decode
_MODEL_KEY = re.compile(rb'"model"\s*:\s*')


def with_model(body: bytes, model: str) -> bytes:
    """``body``, a JSON object, with its top-level ``model`` set to ``model`` and no other byte changed.

    A body without the field is returned as it is; of several such fields the last is kept, as parsers do.
    """
    current = _decode_modelled(body).model
    if current is msgspec.UNSET:
        return body
    value = _encode(model)
    # m, o, d, e and l are \\u006x when escaped. With none about, a body that has the field and says "model" once
    # has it there.
    if body.count(b'"model"') == 1 and b"\\u006" not in body and (key := _MODEL_KEY.search(body)):
        end = key.end() + len(memoryview(current))
        return b"".join([body[: key.end()], value, body[end:]])
    return _with_last_model(body, value)


def _with_last_model(body: bytes, value: bytes) -> bytes:
    """Slow path, for bodies that say "model" more than once: walk the tokens."""
    pieces: list[bytes] = []
    copied = depth = member = value_start = 0
    name: bytes | None = None  # the last top-level string outside of a value: it may be a key
    key: bytes | None = None  # the top-level key whose value is being passed
    found = (0, 0, 0, 0)  # the last field so far: its start, its value's start and end, the start of what follows
    for token in TOKEN.finditer(body):
        text = token[0]
        if text.startswith(b'"'):
            if depth == 1 and key is None:
                name, member = text, token.start()
        elif text in b"{[":
            depth += 1
        elif text == b":":
            if depth == 1:
                key, value_start = name, token.end()
        else:  # } or ] or a comma
            if depth == 1 and key is not None:
                if msgspec.json.decode(key) == "model":
                    if found[3]:
                        if found[0] > copied:
                            pieces.append(body[copied : found[0]])
                        copied = found[3]
                    found = (member, value_start, token.start(), token.end())
                key = None
            if text != b",":
                depth -= 1
    old = body[found[1] : found[2]]
    pieces += [body[copied : found[1] + len(old) - len(old.lstrip())], value]
    return b"".join([*pieces, body[found[1] + len(old.rstrip()) :]])


# No answer has more tokens; what claims to is not believed, and sums stay numbers that can be stored.
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Details(msgspec.Struct):
    cached_tokens: _Tokens | None = None
    reasoning_tokens: _Tokens | None = None


class _UpstreamUsage(msgspec.Struct):
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    total_tokens: _Tokens | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _UpstreamUsage | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def usage_of(body: bytes) -> Usage | None:
    """The tokens that a chat completion says it used; None where it does not say so in OpenAI's shape."""
    try:
        usage = _decode_answer(body).usage
    except (msgspec.DecodeError, RecursionError):
        return None
    if usage is None:
        return None
    details_in, details_out = usage.prompt_tokens_details, usage.completion_tokens_details
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return Usage(
        input_tokens=prompt,
        cached_tokens=(details_in.cached_tokens or 0) if details_in else 0,
        output_tokens=completion,
        reasoning_tokens=(details_out.reasoning_tokens or 0) if details_out else 0,
        total_tokens=usage.total_tokens if usage.total_tokens is not None else prompt + completion,
    )


class _PartHead(msgspec.Struct, array_like=True):
    line: int
    answered: bool
    usage: Usage | None


_decode_head = msgspec.json.Decoder(_PartHead).decode


def encode_part(lines: Iterable[OutputLine]) -> bytes:
    """Finished lines, in any order, as an object that ``decode_part`` reads back: for each a line that says what it
    is, then the line itself as the output file has it."""
    pieces: list[bytes] = []
    for line in lines:
        pieces += (_encode(_PartHead(line.line, line.answered, line.usage)), b"\n", line.content, b"\n")
    return b"".join(pieces)


def decode_part(part: bytes) -> Iterator[tuple[int, OutputLine]]:
    """The lines of a part, each with the offset in bytes at which its content starts; a newline follows it."""
    start = 0
    while start < len(part):
        head_end = part.index(b"\n", start)
        end = part.index(b"\n", head_end + 1)
        head = _decode_head(part[start:head_end])
        yield head_end + 1, OutputLine(head.line, part[head_end + 1 : end], head.answered, head.usage)
        start = end + 1


# A finished segment of more bytes is not brought into memory to be sealed.
SEAL_BYTES = 16 * 1024 * 1024


class SealSummary(msgspec.Struct):
    """What a sealed segment holds: ``answered_bytes`` for the output file, then ``failed_bytes`` for the error file.

    ``left_over`` is the error code of the lines in it that nobody answered, where there are such. ``listed`` says that
    the seal is a list of where these bytes are, not the bytes themselves.
    """

    answered_bytes: int
    failed_bytes: int
    completed: int
    failed: int
    usage: Usage
    left_over: str | None = None
    listed: bool = False


class Sealable(Protocol):
    """A finished line that is sealed: ``size`` is its bytes with the newline."""

    @property
    def line(self) -> int: ...
    @property
    def answered(self) -> bool: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def size(self) -> int: ...


AnyLine = TypeVar("AnyLine", bound=Sealable)


def in_seal_order(lines: Iterable[AnyLine]) -> tuple[list[AnyLine], SealSummary]:
    """A finished segment's lines as they are sealed, answered ones first, each half in the order of the input.

    Of several with the same number the first given counts, so two runs of one chunk cannot double a line.
    """
    first: dict[int, AnyLine] = {}
    for line in lines:
        first.setdefault(line.line, line)
    answered = [first[number] for number in sorted(first) if first[number].answered]
    failed = [first[number] for number in sorted(first) if not first[number].answered]
    usage = Usage()
    for line in first.values():
        if line.usage is not None:
            usage.add(line.usage)
    answered_bytes, failed_bytes = (sum(line.size for line in half) for half in (answered, failed))
    return answered + failed, SealSummary(answered_bytes, failed_bytes, len(answered), len(failed), usage)


def seal(lines: Iterable[OutputLine]) -> tuple[bytes, SealSummary]:
    """A finished segment as one object, so that a segment is sealed whole or not at all."""
    ordered, summary = in_seal_order(lines)
    return b"".join(piece for line in ordered for piece in (line.content, b"\n")), summary
