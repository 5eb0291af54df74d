"""The endpoints that a batch can be for, and what a line must hold for each. Another endpoint is another row."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from nightshift.core.json_tokens import MAX_DEPTH, too_deep


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the lines for ``path`` must hold besides the fields that every line has.

    ``prompt`` is the field of the body that holds the prompt, and ``prompt_kinds`` are the JSON types it may have.
    ``identify`` returns the custom_id and the model of a valid line, and None for most other lines. It is quick, and
    raises ``msgspec.DecodeError`` or ``RecursionError`` for the rest; ``line_check`` then finds out what is wrong.
    """

    path: str
    identify: Callable[[bytes], tuple[str, str] | None]
    prompt: str
    prompt_kinds: tuple[str, ...]


# --- /v1/chat/completions ------------------------------------------------------------------------------------------


# Nearly all messages are objects. This finds the JSON of each ``content`` without decoding it.
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


# Messages of any type: the upstream decides whether they are valid.
class _AnyBody(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None


class _AnyLine(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _AnyBody


_CHAT_PATH = "/v1/chat/completions"
_QUOTE = ord('"')
_decode_chat = msgspec.json.Decoder(_ChatLine).decode
_decode_any = msgspec.json.Decoder(_AnyLine).decode


def _identify_chat(line: bytes) -> tuple[str, str] | None:
    parsed: _ChatLine | _AnyLine
    nestable = len(line)  # bytes that are not in the messages' texts
    try:
        parsed = chat = _decode_chat(line)
    except msgspec.ValidationError:
        parsed = _decode_any(line)
    else:
        for message in chat.body.messages:
            if message.content is msgspec.UNSET:
                continue
            content = memoryview(message.content)
            if content[0] == _QUOTE:
                nestable -= content.nbytes
    # A level takes two bytes or more. Counting brackets takes as long as parsing, so most lines go without it.
    if nestable > 2 * MAX_DEPTH and too_deep(line):
        return None
    body = parsed.body
    valid = parsed.method == "POST" and parsed.url == _CHAT_PATH and not body.stream
    if valid and parsed.custom_id and body.model and body.messages:
        return parsed.custom_id, body.model
    return None


CHAT_COMPLETIONS = Endpoint(_CHAT_PATH, _identify_chat, prompt="messages", prompt_kinds=("an array",))
