"""The answers that the upstream simulator makes up, for each endpoint that it has.

A text is answered with the first sentence of its last paragraph. Equal requests have equal answers.
"""

import base64
import random
import re
import struct
import time
from collections.abc import Callable
from typing import Any

from local.simulation import digest

Json = dict[str, Any]

# Floats of an embedding, where the request does not say.
DIMENSIONS = 8
_CATEGORIES = ("harassment", "hate", "self-harm", "sexual", "violence")
# What limits an answer, by its endpoint's own name.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
UNANSWERABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def answer(endpoint: str, wanted: Json, at_least: int = 0) -> Json:
    """The answer to the request ``wanted``; a text is filled up to ``at_least`` bytes.

    Raises:
        one of ``UNANSWERABLE``: the request has no model, no prompt of the endpoint's form, or a limit below 1.
    """
    if any(limit < 1 for limit in map(wanted.get, _LIMITS) if limit is not None):
        raise ValueError("a limit below 1")
    return {"model": wanted["model"]} | ANSWERS[endpoint](wanted, at_least)


def _chat_completion(wanted: Json, at_least: int) -> Json:
    text = _text(wanted["messages"][-1]["content"])
    sentence = _sentence(text)
    message = {"role": "assistant", "content": _filled(sentence, at_least), "refusal": None}
    return {
        "id": f"chatcmpl-{digest(wanted)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _old_usage(text, sentence),
    }


def _response(wanted: Json, at_least: int) -> Json:
    prompt = wanted["input"]
    text = prompt if isinstance(prompt, str) else _text(prompt[-1]["content"])
    sentence = _sentence(text)
    content = [{"type": "output_text", "text": _filled(sentence, at_least), "annotations": []}]
    name = digest(wanted)
    read, written = len(text.split()), len(sentence.split())
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "output": [
            {"id": f"msg_{name}", "type": "message", "role": "assistant", "status": "completed", "content": content}
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        },
    }


def _completion(wanted: Json, at_least: int) -> Json:
    texts = _inputs(wanted["prompt"])
    sentences = [_sentence(text) for text in texts]
    return {
        "id": f"cmpl-{digest(wanted)}",
        "object": "text_completion",
        "created": int(time.time()),
        "choices": [
            {"index": index, "text": _filled(sentence, at_least), "logprobs": None, "finish_reason": "stop"}
            for index, sentence in enumerate(sentences)
        ],
        "usage": _old_usage(" ".join(texts), " ".join(sentences)),
    }


def _embeddings(wanted: Json, at_least: int) -> Json:
    texts = _inputs(wanted["input"])
    size, as_base64 = int(wanted.get("dimensions", DIMENSIONS)), wanted.get("encoding_format") == "base64"
    tokens = sum(len(text.split()) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(text, size, as_base64=as_base64)}
            for index, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _moderation(wanted: Json, at_least: int) -> Json:
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.001),
    }
    return {"id": f"modr-{digest(wanted)}", "results": [result for _ in _inputs(wanted["input"])]}


ANSWERS: dict[str, Callable[[Json, int], Json]] = {
    "/v1/chat/completions": _chat_completion,
    "/v1/responses": _response,
    "/v1/embeddings": _embeddings,
    "/v1/completions": _completion,
    "/v1/moderations": _moderation,
}


# --- prompts and texts ----------------------------------------------------------------------------------------------


def _text(content: str | list[Json]) -> str:
    """The text of a message."""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _inputs(prompt: str | list[Any]) -> list[str]:
    """The texts of a prompt that may be several. Tokens and parts of other kinds stand as they are written."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ValueError("no input")
    if isinstance(prompt[0], int):
        return [str(prompt)]
    return [each if isinstance(each, str) else str(each) for each in prompt]


def _sentence(text: str) -> str:
    paragraph = text.strip().split("\n\n")[-1]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()), maxsplit=1)[0]


def _filled(sentence: str, at_least: int) -> str:
    missing = at_least - len(sentence)
    return sentence + " " + "And so on. " * (missing // 11) if missing > 0 else sentence


def _old_usage(text: str, sentence: str) -> dict[str, int]:
    read, written = len(text.split()), len(sentence.split())
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _vector(text: str, size: int, *, as_base64: bool) -> list[float] | str:
    chance = random.Random(text)
    floats = [chance.uniform(-0.1, 0.1) for _ in range(size)]
    return base64.b64encode(struct.pack(f"<{size}f", *floats)).decode() if as_base64 else floats
