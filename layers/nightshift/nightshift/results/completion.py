"""The JSON body of a request or an answer, of any endpoint: replace its model, read its usage."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from nightshift.core.json_tokens import TOKEN
from nightshift.results.usage import Usage

_encode = msgspec.json.Encoder().encode

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def set_fields(body: bytes, fields: Mapping[str, msgspec.Raw]) -> bytes:
    """``body``, a JSON object, with ``fields`` in place of its own of the same names; no other value changes."""
    return _encode(_decode_fields(body) | dict(fields))


# --- model ---------------------------------------------------------------------------------------------------------


class _WithModel(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_model = msgspec.json.Decoder(_WithModel).decode
_MODEL_KEY = re.compile(rb'"model"\s*:\s*')


def replace_model(body: bytes, model: str) -> bytes:
    """``body``, a JSON object, with ``model`` as the value of its top-level field ``model``; no other byte changes.

    A body without the field is returned as it is. Of a repeated field the last is kept, because parsers use the last.
    """
    current = _decode_model(body).model
    if current is msgspec.UNSET:
        return body
    value = _encode(model)
    # If `"model"` occurs once and no letter of a key is escaped (m, o, d, e and l are \u006x), it is the top-level key.
    if body.count(b'"model"') == 1 and b"\\u006" not in body and (key := _MODEL_KEY.search(body)):
        end = key.end() + len(memoryview(current))
        return b"".join([body[: key.end()], value, body[end:]])
    return _replace_last_model(body, value)


class _Field(msgspec.Struct, frozen=True):
    """Where a field of an object is: offsets of its key, of its value with spaces around, and of what follows both.

    ``end`` is behind the comma after the field, or behind the brace after the last field.
    """

    start: int
    value_start: int
    value_end: int
    end: int


def _replace_last_model(body: bytes, value: bytes) -> bytes:
    """``body`` with ``value`` in the last top-level field ``model`` and without the other such fields."""
    pieces: list[bytes] = []
    copied = 0
    last = _Field(0, 0, 0, 0)
    for field in _model_fields(body):
        pieces.append(body[copied : last.start])
        copied, last = last.end, field
    old = body[last.value_start : last.value_end]
    value_start = last.value_start + len(old) - len(old.lstrip())
    value_end = last.value_start + len(old.rstrip())
    return b"".join([*pieces, body[copied:value_start], value, body[value_end:]])


def _model_fields(body: bytes) -> Iterator[_Field]:
    """The top-level fields ``model`` of a JSON object, in order."""
    tokens = _top_level_tokens(body)
    for key in tokens:
        colon = next(tokens)
        following = next(token for token in tokens if token[0] in b",}")
        if msgspec.json.decode(key[0]) == "model":
            yield _Field(key.start(), colon.end(), following.start(), following.end())


def _top_level_tokens(body: bytes) -> Iterator[re.Match[bytes]]:
    """The tokens of a JSON object that are not inside of a nested value, without the object's opening brace."""
    depth = 0
    for token in TOKEN.finditer(body):
        text = token[0]
        if text in b"{[":
            depth += 1
        elif text in b"}]" and depth > 1:
            depth -= 1
        elif depth == 1:
            yield token


# --- usage ---------------------------------------------------------------------------------------------------------

# No answer has more tokens. A larger number is not believed, so that sums of them fit into a table.
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Details(msgspec.Struct):
    cached_tokens: _Tokens | None = None
    reasoning_tokens: _Tokens | None = None


class _AnswerUsage(msgspec.Struct):
    """Tokens under their old names (chat completions, completions, embeddings) and under their new ones (responses)."""

    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    total_tokens: _Tokens | None = None


class _WithUsage(msgspec.Struct):
    usage: _AnswerUsage | None = None


_NO_DETAILS = _Details()
_decode_usage = msgspec.json.Decoder(_WithUsage).decode


def usage_of(body: bytes) -> Usage | None:
    """The tokens that an answer reports; None if ``usage`` is missing or has not OpenAI's shape."""
    try:
        usage = _decode_usage(body).usage
    except (msgspec.DecodeError, RecursionError):
        return None
    if usage is None:
        return None
    read = usage.prompt_tokens or usage.input_tokens or 0
    written = usage.completion_tokens or usage.output_tokens or 0
    read_details = usage.prompt_tokens_details or usage.input_tokens_details or _NO_DETAILS
    written_details = usage.completion_tokens_details or usage.output_tokens_details or _NO_DETAILS
    return Usage(
        input_tokens=read,
        cached_tokens=read_details.cached_tokens or 0,
        output_tokens=written,
        reasoning_tokens=written_details.reasoning_tokens or 0,
        total_tokens=usage.total_tokens if usage.total_tokens is not None else read + written,
    )
