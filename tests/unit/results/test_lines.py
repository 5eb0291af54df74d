"""The bytes of output lines: exactly those of the contract, with the upstream's own bytes inside."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nightshift.results.lines import (
    OutputLine,
    Usage,
    answered_line,
    decode_part,
    encode_part,
    failed_line,
    seal,
    usage_of,
    with_model,
)
from nightshift.upstream.answer import is_json_object


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as written: keys may come twice."""


# --- with_model ----------------------------------------------------------------------------------------------------

space = st.sampled_from(["", "", " ", "\n", "\r\n\t", "  "])
keys = st.sampled_from(["model", "Model", "models", "mod", "x", "", 'say "model"', "\\", "é"]) | st.text(max_size=4)
texts = st.text(max_size=8) | st.sampled_from(["model", '"model"', '\\"model":', "{}[],:", "\\", "\u2028\U0001f600"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=3).map(Pairs),
    max_leaves=10,
)


def write_string(text: str, draw: st.DrawFn) -> str:
    style = draw(st.sampled_from(["ascii", "utf-8", "escaped"]))
    if style == "escaped" and all(ord(char) < 0x10000 for char in text):
        form = draw(st.sampled_from(["\\u{:04x}", "\\u{:04X}"]))
        return (
            '"'
            + "".join(form.format(ord(char)) if draw(st.booleans()) else json.dumps(char)[1:-1] for char in text)
            + '"'
        )
    return json.dumps(text, ensure_ascii=style == "ascii")


def write(value: Any, draw: st.DrawFn, model: str | None = None) -> str:
    """``value`` as JSON in some style. With ``model``, top-level fields of that name have that value written."""
    if isinstance(value, Pairs):
        members = []
        for key, inner in value:
            written = json.dumps(model) if model is not None and key == "model" else write(inner, draw)
            members.append(f"{draw(space)}{write_string(key, draw)}{draw(space)}:{draw(space)}{written}{draw(space)}")
        return "{" + (",".join(members) or draw(space)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(draw(space) + write(inner, draw) + draw(space) for inner in value) + "]"
    return write_string(value, draw) if isinstance(value, str) else json.dumps(value)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    members = draw(st.lists(st.tuples(keys, values), max_size=5))
    for _ in range(draw(st.integers(0, 2))):
        members.insert(draw(st.integers(0, len(members))), ("model", draw(values)))
    return (draw(space) + write(Pairs(members), draw) + draw(space)).encode()


def read(body: bytes) -> Pairs:
    found: Pairs = json.loads(body, object_pairs_hook=Pairs)
    return found


@given(body=bodies(), model=texts)
@settings(max_examples=400)
def test_model_is_replaced_at_the_top_and_nowhere_else(body: bytes, model: str) -> None:
    members = list(read(body))
    last = max((number for number, (key, _) in enumerate(members) if key == "model"), default=-1)
    expected = [
        (key, model if key == "model" else value)
        for number, (key, value) in enumerate(members)
        if key != "model" or number == last
    ]
    assert list(read(with_model(body, model))) == expected


def replaced(body: bytes, model: str) -> bytes:
    """What ``with_model`` must give, found in another way: the bytes of each value by a scanner of the stdlib."""
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
    for member, _, _, at in reversed(cuts):  # those before the last go, with their commas
        text = text[:member] + text[at:]
    return text.encode()


@given(body=bodies(), model=st.sampled_from(["m", "gpt-4o", 'quo"te', "é"]))
@settings(max_examples=400)
def test_every_other_byte_is_kept(body: bytes, model: str) -> None:
    assert with_model(body, model) == replaced(body, model)


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
def test_model_in_awkward_places(body: bytes, expected: bytes) -> None:
    assert with_model(body, "new") == expected


def test_a_long_body_that_says_model_twice_takes_little_memory() -> None:
    """Base64 images and tools with a parameter called model come together; a worker has 512 MB for all of it."""
    body = b'{"model":"a","x":{"model":1},"image":"' + b"A" * (2 << 20) + b'"}'
    tracemalloc.start()
    try:
        with_model(body, "new")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(body)


def test_a_field_that_is_there_over_and_over_makes_no_body_longer() -> None:
    body = b'{"x":0,' + b'"model":1,' * 100_000 + b'"y":0}'
    assert with_model(body, "m" * 200) == b'{"x":0,"model":"' + b"m" * 200 + b'","y":0}'


# --- lines ---------------------------------------------------------------------------------------------------------


def test_an_answered_line_is_that_of_the_contract() -> None:
    line = answered_line("batch_0123", 7, "a", 200, "req_1", b'{"object":"chat.completion"}', Usage(1))
    assert line.content == (
        b'{"id":"batch_req_01230007","custom_id":"a","response":{"status_code":200,"request_id":"req_1",'
        b'"body":{"object":"chat.completion"}},"error":null}'
    )
    assert line == OutputLine(7, line.content, answered=True, usage=Usage(1))


@pytest.mark.parametrize(("status", "answered"), [(200, True), (201, True), (299, True), (199, False), (300, False)])
def test_success_goes_to_the_output_file_and_all_else_to_the_error_file(status: int, answered: bool) -> None:
    assert answered_line("batch_1", 0, "a", status, "r", b"{}", None).answered is answered


def test_a_failed_line_is_that_of_the_contract() -> None:
    line = failed_line("batch_0123", 40, "c", "batch_expired", "Too late.")
    assert line.content == (
        b'{"id":"batch_req_01230018","custom_id":"c","response":null,'
        b'"error":{"code":"batch_expired","message":"Too late."}}'
    )
    assert (line.answered, line.usage) == (False, None)


@given(body=bodies(), custom_id=st.text(), request_id=st.text(max_size=20))
def test_every_line_is_one_line_with_the_answer_inside(body: bytes, custom_id: str, request_id: str) -> None:
    line = answered_line("batch_1", 3, custom_id, 200, request_id, body, None).content
    assert b"\n" not in line
    assert b"\r" not in line
    parsed = json.loads(line, object_pairs_hook=Pairs)
    assert [key for key, _ in parsed] == ["id", "custom_id", "response", "error"]
    response = dict(dict(parsed)["response"])
    assert (dict(parsed)["custom_id"], response["request_id"]) == (custom_id, request_id)
    assert response["body"] == read(body)


def test_a_pretty_printed_answer_keeps_everything_but_its_line_breaks() -> None:
    body = json.dumps({"text": "two\nlines", "n": [1, 2]}, indent=2).replace("\n", "\r\n").encode()
    line = answered_line("batch_1", 0, "a", 200, "r", b"\n" + body + b"\r\n", None).content
    assert json.loads(line)["response"]["body"] == {"text": "two\nlines", "n": [1, 2]}
    assert len(line.splitlines()) == 1


# --- parts and seals -----------------------------------------------------------------------------------------------

usages = st.none() | st.builds(Usage, *[st.integers(0, 10**12)] * 5)
output_lines = st.builds(
    lambda number, text, answered, usage, other: OutputLine(
        number, json.dumps({"text": text}, ensure_ascii=other).encode(), answered, usage
    ),
    st.integers(0, 49_999),
    st.text(max_size=10) | st.sampled_from(["\u2028\u0085\x0b\x0c\x1c", "]\n["]),
    st.booleans(),
    usages,
    st.booleans(),
)


@given(st.lists(output_lines, max_size=10))
def test_a_part_is_read_as_it_was_written(lines: list[OutputLine]) -> None:
    assert [line for _, line in decode_part(encode_part(lines))] == lines


@given(st.lists(output_lines, max_size=10))
def test_a_line_in_a_part_can_be_cut_out_with_its_newline(lines: list[OutputLine]) -> None:
    part = encode_part(lines)
    assert [part[start : start + line.size] for start, line in decode_part(part)] == [
        line.content + b"\n" for line in lines
    ]


@given(body=bodies(), custom_id=st.text(max_size=5))
def test_real_lines_come_back_from_a_part(body: bytes, custom_id: str) -> None:
    lines = [
        answered_line("batch_1", 0, custom_id, 200, "r", body, None),
        failed_line("batch_1", 1, custom_id, "c", "m"),
    ]
    assert [line for _, line in decode_part(encode_part(lines))] == lines


def test_the_deepest_answer_that_is_accepted_comes_back_from_a_part() -> None:
    def nested(depth: int) -> bytes:
        return b'{"x":' + b"[" * depth + b"]" * depth + b"}"

    deepest = max(depth for depth in range(0, 3_000, 2) if is_json_object(nested(depth)))
    line = answered_line("batch_1", 0, "a", 200, "r", with_model(nested(deepest), "m"), None)
    [(_, kept)] = decode_part(encode_part([line]))
    assert kept == line


@given(st.lists(output_lines, max_size=20))
def test_a_seal_sorts_drops_doubles_and_splits(lines: list[OutputLine]) -> None:
    content, summary = seal(lines)
    first = {line.line: line for line in reversed(lines)}
    ordered = [first[number] for number in sorted(first)]
    answered = [line.content for line in ordered if line.answered]
    failed = [line.content for line in ordered if not line.answered]
    assert content[: summary.answered_bytes] == b"".join(line + b"\n" for line in answered)
    assert content[summary.answered_bytes :] == b"".join(line + b"\n" for line in failed)
    assert (summary.completed, summary.failed) == (len(answered), len(failed))
    assert (summary.answered_bytes, summary.failed_bytes) == (
        summary.answered_bytes,
        len(content) - summary.answered_bytes,
    )
    assert summary.usage.input_tokens == sum(line.usage.input_tokens for line in ordered if line.usage)
    assert summary.usage.total_tokens == sum(line.usage.total_tokens for line in ordered if line.usage)


def test_of_two_answers_to_one_line_the_first_counts() -> None:
    one, other = OutputLine(0, b"1", True, Usage(1)), OutputLine(0, b"2", False, Usage(2))
    content, summary = seal([one, other])
    assert (content, summary.completed, summary.failed, summary.usage) == (b"1\n", 1, 0, Usage(1))


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
    assert found.as_dict() == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 30,
    }


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
def test_usage_of_odd_shapes(usage: str, expected: Usage | None) -> None:
    assert usage_of(f'{{"usage":{usage}}}'.encode()) == expected


@pytest.mark.parametrize("body", [b"{}", b'{"usage":null}', b"[]", b"", b"{", b'{"usage":' + b"[" * 100_000])
def test_no_usage_is_none(body: bytes) -> None:
    assert usage_of(body) is None


@pytest.mark.parametrize("tokens", ["-1", str(2**63), str(2**64), "9" * 60, "1e400"])
def test_nonsense_does_not_get_into_the_sums(tokens: str) -> None:
    """DynamoDB holds 38 digits, and a batch's sums must not go down."""
    assert usage_of(f'{{"usage":{{"prompt_tokens":{tokens},"total_tokens":1}}}}'.encode()) in (
        None,
        Usage(0, 0, 0, 0, 1),
    )


def test_usage_adds_up_field_by_field() -> None:
    total = Usage(1, 2, 3, 4, 5)
    total.add(Usage(10, 20, 30, 40, 50))
    assert total == Usage(11, 22, 33, 44, 55)
