"""The body of a chat completion: its model is replaced, its usage is read, and no other byte changes."""

import json
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.results.completion import replace_model, set_fields, usage_of
from nightshift.results.usage import Usage

from tests.unit.results.bodies import bodies, read, texts

# --- model ---------------------------------------------------------------------------------------------------------


@given(body=bodies(), model=texts)
@settings(max_examples=400)
def test_only_the_top_level_model_is_replaced(body: bytes, model: str) -> None:
    members = list(read(body))
    last = max((number for number, (key, _) in enumerate(members) if key == "model"), default=-1)
    expected = [
        (key, model if key == "model" else value)
        for number, (key, value) in enumerate(members)
        if key != "model" or number == last
    ]
    assert list(read(replace_model(body, model))) == expected


def replaced(body: bytes, model: str) -> bytes:
    """The expected result, from the offsets that the stdlib's JSON scanner finds."""
    decoder, text, cuts = json.JSONDecoder(strict=True), body.decode(), []
    at = text.index("{") + 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if text[at] == "}":
            break
        member = at
        key, at = decoder.raw_decode(text, at)
        at = text.index(":", at) + 1
        at += len(text[at:]) - len(text[at:].lstrip())
        _, end = decoder.raw_decode(text, at)
        if key == "model":
            start = at
        at = end + len(text[end:]) - len(text[end:].lstrip())
        at += text[at] == ","
        if key == "model":
            cuts.append((member, start, end, at))
    if cuts:
        member, start, end, at = cuts.pop()
        text = text[:start] + json.dumps(model, ensure_ascii=False) + text[end:]
    for member, _, _, at in reversed(cuts):  # the earlier fields go, with their commas
        text = text[:member] + text[at:]
    return text.encode()


@given(body=bodies(), model=st.sampled_from(["m", "gpt-4o", 'quo"te', "é"]))
@settings(max_examples=400)
def test_no_other_byte_changes(body: bytes, model: str) -> None:
    assert replace_model(body, model) == replaced(body, model)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b' { "model" :\n"a" , "x": 1.50 }\n', b' { "model" :\n"new" , "x": 1.50 }\n'),
        (b'{"x":1}', b'{"x":1}'),
        (b"{}", b"{}"),
        (b'{"x":{"model":"a"}}', b'{"x":{"model":"a"}}'),
        (b'{"x":{"model":"a"},"model":"b"}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{ "model": "b" , "x": {"model": "a"} }', b'{ "model": "new" , "x": {"model": "a"} }'),
        (b'{"model":"a","model":"b"}', b'{"model":"new"}'),
        (b'{"x":1, "model":"a", "y":2, "model" : "b" ,"z":3}', b'{"x":1,  "y":2, "model" : "new" ,"z":3}'),
        (b'{"m\\u006fdel":"a"}', b'{"m\\u006fdel":"new"}'),
        (
            b'{"\\u006D\\u006f\\u0064\\u0065\\u006C":"a","x":"model"}',
            b'{"\\u006D\\u006f\\u0064\\u0065\\u006C":"new","x":"model"}',
        ),
        (b'{"x":"model","model":"a"}', b'{"x":"model","model":"new"}'),
        (b'{"x":"\\"model\\":","model":"a"}', b'{"x":"\\"model\\":","model":"new"}'),
        (
            b'{"x":"}\\\\","y":["model",{"model":1}],"model":"a"}',
            b'{"x":"}\\\\","y":["model",{"model":1}],"model":"new"}',
        ),
        (b'{"model":null}', b'{"model":"new"}'),
        (b'{"model":{"model":["model"]},"x":1}', b'{"model":"new","x":1}'),
        (b'{"model":[1,2],"model ":1}', b'{"model":"new","model ":1}'),
        (b'{"model":"a","x":1e999,"y":' + b"9" * 400 + b"}", b'{"model":"new","x":1e999,"y":' + b"9" * 400 + b"}"),
    ],
)
def test_a_model_in_an_awkward_place(body: bytes, expected: bytes) -> None:
    assert replace_model(body, "new") == expected


def test_the_token_walk_takes_little_memory() -> None:
    """A request can have images in base64 and a tool with a parameter ``model``; a worker has 512 MB in all."""
    body = b'{"model":"a","x":{"model":1},"image":"' + b"A" * (2 << 20) + b'"}'
    tracemalloc.start()
    try:
        replace_model(body, "new")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(body)


def test_a_repeated_model_is_kept_once() -> None:
    body = b'{"x":0,' + b'"model":1,' * 100_000 + b'"y":0}'
    assert replace_model(body, "m" * 200) == b'{"x":0,"model":"' + b"m" * 200 + b'","y":0}'


# --- usage ---------------------------------------------------------------------------------------------------------


def test_usage_of_a_chat_completion() -> None:
    body = {
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
    }
    found = usage_of(json.dumps(body).encode())
    assert found == Usage(10, 4, 20, 5, 30)


def test_usage_of_a_response() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 30,
    }
    assert usage_of(json.dumps({"output": [], "usage": usage}).encode()) == Usage(10, 4, 20, 5, 30)


def test_usage_of_embeddings_and_of_a_moderation() -> None:
    body = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    assert usage_of(json.dumps(body).encode()) == Usage(8, 0, 0, 0, 8)
    assert usage_of(b'{"results":[{"flagged":false}]}') is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ('{"prompt_tokens":1,"completion_tokens":2}', Usage(1, 0, 2, 0, 3)),
        ('{"prompt_tokens":1,"total_tokens":1}', Usage(1, 0, 0, 0, 1)),
        ('{"prompt_tokens":1,"completion_tokens":null,"total_tokens":null}', Usage(1, 0, 0, 0, 1)),
        ('{"prompt_tokens":1,"prompt_tokens_details":null}', Usage(1, 0, 0, 0, 1)),
        ('{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":null}}', Usage(1, 0, 0, 0, 1)),
        ("{}", Usage()),
        ("null", None),
        ("7", None),
        ("[]", None),
        ('"text"', None),
        ('{"prompt_tokens":"1"}', None),
        ('{"prompt_tokens":1.5}', None),
        ('{"prompt_tokens":true}', None),
        ('{"prompt_tokens_details":[]}', None),
    ],
)
def test_usage_in_an_odd_shape(usage: str, expected: Usage | None) -> None:
    assert usage_of(f'{{"usage":{usage}}}'.encode()) == expected


@pytest.mark.parametrize("body", [b"{}", b'{"usage":null}', b"[]", b"", b"{", b'{"usage":' + b"[" * 100_000])
def test_a_body_without_usage_has_none(body: bytes) -> None:
    assert usage_of(body) is None


@pytest.mark.parametrize("tokens", ["-1", str(2**63), str(2**64), "9" * 60, "1e400"])
def test_impossible_token_counts_are_ignored(tokens: str) -> None:
    """DynamoDB stores 38 digits, and the sums of a batch must not fall."""
    assert usage_of(f'{{"usage":{{"prompt_tokens":{tokens},"total_tokens":1}}}}'.encode()) in (
        None,
        Usage(0, 0, 0, 0, 1),
    )


def test_fields_are_set_and_the_rest_is_kept() -> None:
    body = b'{"model":"m","n":1e400,"service_tier":"auto","x":{"a":[1]}}'
    fields = {"service_tier": msgspec.Raw(b'"flex"'), "store": msgspec.Raw(b"false")}
    assert set_fields(body, fields) == b'{"model":"m","n":1e400,"service_tier":"flex","x":{"a":[1]},"store":false}'
