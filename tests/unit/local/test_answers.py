"""The upstream simulator refuses what providers refuse."""

from typing import Any

import pytest

from local.answers import UNANSWERABLE, answer

MESSAGES = [{"role": "user", "content": "Hello. More."}]


@pytest.mark.parametrize(
    "body",
    [
        {"max_tokens": -1},
        {"max_completion_tokens": 0},
        {"max_tokens": "10"},
        {"messages": []},
        {"messages": [{"rolez": "user", "contentz": "Hello."}]},
    ],
)
def test_a_wrong_request_has_no_answer(body: dict[str, Any]) -> None:
    with pytest.raises(UNANSWERABLE):
        answer("/v1/chat/completions", {"model": "m", "messages": MESSAGES, **body})


def test_a_limit_may_be_null() -> None:
    answered = answer("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "max_tokens": None})
    assert answered["choices"][0]["message"]["content"] == "Hello."
