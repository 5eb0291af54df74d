"""The quick check of one line: what identifies a valid line, and nothing for most others.

It decodes a line once and into as little as possible, because a file has up to 200 MB and its caller waits.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from nightshift.core.json_tokens import MAX_DEPTH, too_deep
from nightshift.routes.endpoint import ENDPOINTS, Endpoint

# The ``custom_id`` and the model of a line, and how many inputs its prompt has. A plain tuple is the quickest.
Identity = tuple[str, str, int]


# Nearly all messages are objects. This finds the JSON of each ``content`` without decoding it.
class _Message(msgspec.Struct):
    content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_QUOTE = ord('"')
_LIST = ord("[")
_OBJECT = ord("{")

Decode = Callable[[bytes], Any]


def _decoder(endpoint: Endpoint, item: Any) -> Decode:
    """A decoder of lines whose prompt, if it is an array, is one of ``item``."""
    prompt = list[item]
    fields: list[Any] = [("model", str), ("prompt", str | prompt if "a string" in endpoint.prompt_kinds else prompt)]
    fields += [(name, bool | None, None) for name in endpoint.refused]
    body = msgspec.defstruct("Body", fields, rename={"prompt": endpoint.prompt})
    line = msgspec.defstruct("Line", [("custom_id", str), ("method", str), ("url", str), ("body", body)])
    return msgspec.json.Decoder(line).decode


# For each endpoint the decoder of the usual prompts, and that of all: the upstream decides whether they are valid.
_DECODERS = {row.path: (_decoder(row, _Message), _decoder(row, msgspec.Raw)) for row in ENDPOINTS.values()}


def identity_of(line: bytes, endpoint: Endpoint) -> Identity | None:
    """The identity of a valid line, and None for most other lines; ``line_check`` then finds out what is wrong.

    Raises:
        msgspec.DecodeError, RecursionError: it is one of the others.
    """
    decode_usual, decode_any = _DECODERS[endpoint.path]
    try:
        parsed = decode_usual(line)
        body = parsed.body
        texts = body.prompt if isinstance(body.prompt, str) else [message.content for message in body.prompt]
    except msgspec.ValidationError:
        parsed = decode_any(line)
        body = parsed.body
        texts = body.prompt
    # A level takes two bytes or more. Counting brackets takes as long as parsing, so most lines go without it.
    if len(line) - _text_bytes(texts) > 2 * MAX_DEPTH and too_deep(line):
        return None
    for name in endpoint.refused:
        if getattr(body, name):
            return None
    if parsed.method == "POST" and parsed.url == endpoint.path and parsed.custom_id and body.model and body.prompt:
        return parsed.custom_id, body.model, _inputs(body.prompt) if endpoint.max_inputs else 1
    return None


def _text_bytes(texts: str | Iterable[msgspec.Raw | msgspec.UnsetType]) -> int:
    """How many bytes of the line are in the prompt's texts, at least: no brackets that nest."""
    if isinstance(texts, str):
        return len(texts)
    size = 0
    for text in texts:
        if text is not msgspec.UNSET:
            view = memoryview(text)
            if view[0] == _QUOTE:
                size += view.nbytes
    return size


def _inputs(prompt: str | list[Any]) -> int:
    """How many inputs a prompt has: one for each text or array of tokens; a bare array of tokens is one."""
    if isinstance(prompt, str):
        return 1
    return sum(isinstance(item, _Message) or memoryview(item)[0] in (_QUOTE, _LIST, _OBJECT) for item in prompt) or 1
