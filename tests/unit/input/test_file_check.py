"""The check of an input file: a verdict or all that is wrong, never an exception, whatever the bytes."""

import json
import random
import time
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nightshift.core.errors import InvalidFileError
from nightshift.core.json_tokens import MAX_DEPTH
from nightshift.input import file_check as jsonl
from nightshift.input.file_check import MAX_FAULTS, MAX_LINE_BYTES, MAX_LINES, FileCheck

from tests.unit.samples import MODEL, request, request_line


def check(content: bytes, block_bytes: int | None = None) -> FileCheck:
    done = FileCheck()
    size = block_bytes or max(1, len(content))
    for start in range(0, len(content), size):
        done.feed(content[start : start + size])
    done.finish()
    return done


def check_lines(*lines: bytes) -> FileCheck:
    return check(b"\n".join(lines))


def codes(done: FileCheck) -> list[tuple[str, str | None, int | None]]:
    return [(fault.code, fault.param, fault.line) for fault in done.faults]


def refused(done: FileCheck) -> InvalidFileError:
    with pytest.raises(InvalidFileError) as caught:
        done.verdict()
    return caught.value


def raw(extra: str = "", *, custom_id: str = '"a"', method: str = '"POST"', body: str | None = None) -> bytes:
    """A line written out, for what ``json.dumps`` would not write."""
    inner = body or f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"x"}}]{extra}}}'
    return f'{{"custom_id":{custom_id},"method":{method},"url":"/v1/chat/completions","body":{inner}}}'.encode()


# --- any bytes -----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["custom_id", "method", "url", "body", "extra"])
bodies = st.dictionaries(st.sampled_from(["model", "messages", "stream", "x"]), json_values)
lines = st.one_of(
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
    json_values.map(json.dumps).map(str.encode),
    st.dictionaries(fields, json_values | bodies).map(json.dumps).map(str.encode),
    st.builds(lambda body: request_line(body=body), bodies),
    st.builds(request_line, st.text(max_size=3), method=st.sampled_from(["POST", "GET"]), extra=json_values),
    st.sampled_from(
        [raw(), raw(',"t":1e999'), raw(',"t":"\\ud800"'), b"", b"\xef\xbb\xbf" + raw(), b"\r", raw() + b"\r"]
    ),
)
files = st.lists(lines, max_size=6).map(b"\n".join) | st.binary(max_size=200)


@given(content=files, cut=st.integers(1, 60))
@settings(max_examples=300)
@example(b"", 1)
@example(b"\n", 1)
@example(b"\n\n", 1)
def test_any_bytes_give_a_verdict_or_faults_and_how_they_were_cut_does_not_matter(content: bytes, cut: int) -> None:
    whole, pieces = check(content), check(content, cut)
    assert (whole.faults, whole.model, whole.ends) == (pieces.faults, pieces.model, pieces.ends)
    if whole.faults:
        details = refused(whole).details
        assert details == whole.faults
        assert all(fault.line is None or 1 <= fault.line <= len(whole.ends) for fault in details)
        msgspec.json.encode(details)
    else:
        assert whole.verdict() == whole.model


@given(files)
@settings(max_examples=300)
def test_what_is_accepted_cuts_into_its_lines_again(content: bytes) -> None:
    done = check(content)
    if done.faults:
        return
    pieces = [content[start:end] for start, end in pairwise([0, *done.ends])]
    assert b"".join(pieces) == content
    assert [piece.rstrip(b"\n") for piece in pieces] == content.removesuffix(b"\n").split(b"\n")


@given(files)
@settings(max_examples=300)
def test_what_is_accepted_is_json_to_others_too_and_has_requests(content: bytes) -> None:
    done = check(content)
    if done.faults:
        return
    texts = content.removesuffix(b"\n").split(b"\n")
    for text, parsed in zip(texts, jsonl.requests(content), strict=True):
        read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert (read["method"], read["url"]) == ("POST", jsonl.ENDPOINT)
        assert read["custom_id"] == parsed.custom_id
        assert json.loads(bytes(parsed.body)) == read["body"]
        assert read["body"]["model"] == done.model
        assert isinstance(read["body"]["messages"], list)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 300))
def test_wrong_lines_are_named_by_their_number(right: list[bool], cut: int) -> None:
    texts = [request_line(f"id-{n}") if good else b"{" for n, good in enumerate(right)]
    done = check(b"\n".join(texts), cut)
    assert [fault.line for fault in done.faults] == [n for n, good in enumerate(right, 1) if not good]


def test_a_random_mutation_of_a_legal_file_never_raises() -> None:
    chance = random.Random(3)
    legal = b"\n".join(request_line(f"id-{n}", body={"content": "é\U0001f600\\"}) for n in range(3))
    for _ in range(2_000):
        content = bytearray(legal)
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        done = check(bytes(content))
        if not done.faults:
            assert len(list(jsonl.requests(bytes(content)))) == len(done.ends)


# --- legal files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("between", [b"\n", b"\r\n"])
def test_line_endings_of_all_systems_are_fine(between: bytes, ending: bytes) -> None:
    content = between.join([request_line("a"), request_line("b")]) + ending
    done = check(content)
    assert done.verdict() == MODEL
    assert done.ends[-1] == len(content)
    assert [parsed.custom_id for parsed in jsonl.requests(content)] == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        request_line(extra={"deep": [1, {"er": None}]}),
        request_line(body={"temperature": 0.5, "tools": [{"type": "function"}], "made_up": True}),
        request_line(body={"stream": False}),
        request_line(body={"stream": None}),
        b"  \t" + request_line() + b" \r",
        json.dumps(request(body={"messages": ["Zoë \u2028 \U0001f600"]}), ensure_ascii=False).encode(),
        raw(',"seed":' + "9" * 400),
        raw(',"temperature":1e999'),
        raw(',"x":1,"x":2'),
        raw(',"messages":[1],"model":"' + MODEL + '"'),
        raw(',"x":' + "[" * 50 + "]" * 50),
        raw(custom_id='"\\ud83d\\ude00\\u0000\\n"'),
        raw(custom_id='"' + "x" * 100_000 + '"'),
    ],
)
def test_a_legal_line_is_accepted(line: bytes) -> None:
    assert check(line).verdict() == MODEL


def test_of_keys_given_twice_the_last_counts_as_it_does_everywhere() -> None:
    first = raw().replace(b'"custom_id":"a"', b'"custom_id":"a","custom_id":"b"')
    assert [parsed.custom_id for parsed in jsonl.requests(first)] == ["b"]
    assert codes(check_lines(first, raw(custom_id='"b"'))) == [("duplicate_custom_id", "custom_id", 2)]
    assert codes(check_lines(raw(',"stream":false,"stream":true'))) == [("streaming_unsupported", "body.stream", 1)]


def test_bodies_are_the_callers_own_bytes() -> None:
    body = b'{ "messages" : [1.10,  "\\u00e9"], "model":"gpt-4o-mini" }'
    line = b'{"body":' + body + b',"url":"/v1/chat/completions","method":"POST","custom_id":"a"}'
    assert check(line).verdict() == MODEL
    assert [bytes(parsed.body) for parsed in jsonl.requests(line + b"\n")] == [body]


# --- each code of the contract -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"not json", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"null", "invalid_json_line", None),
        (b'"text"', "invalid_json_line", None),
        (b"{}{}", "invalid_json_line", None),
        (request_line() + b",", "invalid_json_line", None),
        (b"   ", "invalid_json_line", None),
        (b"\x00", "invalid_json_line", None),
        (raw(',"t":NaN'), "invalid_json_line", None),
        (raw(',"t":-Infinity'), "invalid_json_line", None),
        (raw(',"t":01'), "invalid_json_line", None),
        (raw(',"t":"\t"'), "invalid_json_line", None),
        (raw(',"t":"\\x"'), "invalid_json_line", None),
        (raw(',"t":1,'), "invalid_json_line", None),
        (raw(custom_id='"\\ud800"'), "invalid_json_line", None),
        (raw(',"t":"\\ud800"'), "invalid_json_line", None),
        (raw(',"t":"\\udc00\\ud800"'), "invalid_json_line", None),
        (raw(',"t":"').replace(b'"t":"', b'"t":"\xff"'), "invalid_json_line", None),
        (raw().replace(b'"x"', b'"\xed\xa0\x80"'), "invalid_json_line", None),
        (raw().replace(b'{"custom_id"', b'{"skipped":"\xc3","custom_id"'), "invalid_json_line", None),
        (raw(',"t":' + "[" * 100_000), "invalid_json_line", None),
        (raw(',"t":' + "[" * 100_000 + "]" * 100_000), "invalid_json_line", None),
        (raw(',"t":' + '{"a":' * 100_000 + "1" + "}" * 100_000), "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (request_line(custom_id=...), "missing_required_parameter", "custom_id"),  # type: ignore[arg-type]
        (request_line(custom_id=None), "missing_required_parameter", "custom_id"),  # type: ignore[arg-type]
        (request_line(method=...), "missing_required_parameter", "method"),
        (request_line(url=...), "missing_required_parameter", "url"),
        (raw(body="null"), "missing_required_parameter", "body"),
        (raw().replace(b'"body"', b'"Body"'), "missing_required_parameter", "body"),
        (request_line(method="GET"), "invalid_method", "method"),
        (request_line(method="post"), "invalid_method", "method"),
        (request_line(method=1), "invalid_method", "method"),
        (request_line(url="/v1/embeddings"), "invalid_url", "url"),
        (request_line(url="/v1/chat/completions/"), "invalid_url", "url"),
        (request_line(url=["/v1/chat/completions"]), "invalid_url", "url"),
        (request_line(custom_id=""), "invalid_request", "custom_id"),
        (request_line(custom_id=7), "invalid_request", "custom_id"),  # type: ignore[arg-type]
        (raw(body="[]"), "invalid_request", "body"),
        (raw(body='"text"'), "invalid_request", "body"),
        (request_line(body={"model": ...}), "invalid_request", "body.model"),
        (request_line(body={"model": None}), "invalid_request", "body.model"),
        (request_line(body={"model": ""}), "invalid_request", "body.model"),
        (request_line(body={"model": 4}), "invalid_request", "body.model"),
        (request_line(body={"messages": ...}), "invalid_request", "body.messages"),
        (request_line(body={"messages": []}), "invalid_request", "body.messages"),
        (request_line(body={"messages": "Hello."}), "invalid_request", "body.messages"),
        (request_line(body={"messages": {"role": "user"}}), "invalid_request", "body.messages"),
        (request_line(body={"stream": True}), "streaming_unsupported", "body.stream"),
        (request_line(body={"stream": 0}), "streaming_unsupported", "body.stream"),
        (request_line(body={"stream": "no"}), "streaming_unsupported", "body.stream"),
        (request_line(body={"x": "y" * MAX_LINE_BYTES}), "line_too_long", None),
        (b"x" * (MAX_LINE_BYTES + 1), "line_too_long", None),
    ],
)
def test_a_wrong_line_is_named_with_its_code(line: bytes, code: str | None, param: str | None) -> None:
    fine = request_line("fine")
    for content in (fine + b"\n" + line, fine + b"\n" + line + b"\n"):
        assert codes(check(content)) == ([(code, param, 2)] if code else [])
    assert codes(check(line + b"\n" + fine)) == ([(code, param, 1)] if code else [])


def test_an_id_used_twice_is_named_where_it_is_used_again() -> None:
    done = check_lines(request_line("a"), request_line("b"), request_line("a"), request_line("a"))
    assert codes(done) == [("duplicate_custom_id", "custom_id", 3), ("duplicate_custom_id", "custom_id", 4)]
    assert "'a'" in done.faults[0].message


def test_ids_that_differ_only_in_writing_are_the_same() -> None:
    assert codes(check_lines(raw(custom_id='"\\u0061"'), raw())) == [("duplicate_custom_id", "custom_id", 2)]


@pytest.mark.parametrize("length", [64, 65, 100_000])
def test_long_ids_are_told_apart_by_all_of_their_characters(length: int) -> None:
    one, other = "x" * (length - 1) + "1", "x" * (length - 1) + "2"
    assert not check_lines(request_line(one), request_line(other)).faults
    assert codes(check_lines(request_line(one), request_line(one))) == [("duplicate_custom_id", "custom_id", 2)]


def test_huge_ids_are_not_held_in_memory_or_shown_whole() -> None:
    done = check_lines(*[request_line("x" * 1_000_000)] * 20)
    assert len(done.faults) == 19
    assert all(len(fault.message) < 200 for fault in done.faults)
    assert sum(map(len, done._seen)) < 1_000


def test_a_line_of_a_wrong_kind_still_takes_its_id() -> None:
    assert codes(check_lines(request_line(method="GET"), request_line())) == [
        ("invalid_method", "method", 1),
        ("duplicate_custom_id", "custom_id", 2),
    ]


def test_one_line_can_have_many_faults() -> None:
    assert codes(check(b'{"method":"PUT","url":"/","body":{"stream":true}}')) == [
        ("missing_required_parameter", "custom_id", 1),
        ("invalid_method", "method", 1),
        ("invalid_url", "url", 1),
        ("invalid_request", "body.model", 1),
        ("invalid_request", "body.messages", 1),
        ("streaming_unsupported", "body.stream", 1),
    ]


@pytest.mark.parametrize("extra", [',"t":1e999', ',"t":' + "9" * 5_000])
def test_what_no_program_here_can_hold_does_not_hide_what_is_wrong(extra: str) -> None:
    """These are JSON by its grammar, and ``body`` is the upstream's to judge: the fault is the method."""
    assert codes(check(raw(extra, method='"GET"'))) == [("invalid_method", "method", 1)]


def test_a_file_names_all_of_its_faults_in_order() -> None:
    done = check_lines(b"{", request_line("a"), b"", request_line("b", method="GET"), request_line("a"))
    assert codes(done) == [
        ("invalid_json_line", None, 1),
        ("invalid_json_line", None, 3),
        ("invalid_method", "method", 4),
        ("duplicate_custom_id", "custom_id", 5),
    ]
    error = refused(done)
    assert (error.status, error.code, error.param) == (400, "batch_invalid_jsonl", "input_file_id")
    assert "4 problems" in error.message


@pytest.mark.parametrize("content", [b""])
def test_an_empty_file_is_refused_as_a_whole(content: bytes) -> None:
    error = refused(check(content))
    assert error.code == "batch_invalid_jsonl"
    assert [(fault.line, fault.message) for fault in error.details] == [(None, "The file is empty.")]


@pytest.mark.parametrize("content", [b"\n", b"\n\n", b"\r\n", b" \n"])
def test_a_file_of_blank_lines_is_refused(content: bytes) -> None:
    assert {fault.code for fault in check(content).faults} == {"invalid_json_line"}
    assert "blank" in check(content).faults[0].message


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_blank_line_is_a_fault_wherever_it_is(position: int) -> None:
    texts = [request_line("a"), request_line("b")]
    texts.insert(position, b"")
    content = b"\n".join(texts) + b"\n"
    assert codes(check(content)) == [("invalid_json_line", None, position + 1)]


def test_a_byte_order_mark_is_called_by_its_name() -> None:
    done = check(b"\xef\xbb\xbf" + request_line())
    assert codes(done) == [("invalid_json_line", None, 1)]
    assert "byte order mark" in done.faults[0].message
    assert codes(check_lines(request_line(), b"\xef\xbb\xbf" + request_line("b"))) == [("invalid_json_line", None, 2)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused(encoding: str) -> None:
    assert refused(check(request_line().decode().encode(encoding))).code == "batch_invalid_jsonl"


# --- one model -----------------------------------------------------------------------------------------------------


def with_model(model: str, custom_id: str) -> bytes:
    return request_line(custom_id, body={"model": model})


def test_a_second_model_is_refused_with_every_line_that_differs() -> None:
    done = check_lines(*[with_model(model, str(n)) for n, model in enumerate("aabab")])
    error = refused(done)
    assert error.code == "batch_multiple_models"
    assert [(fault.line, fault.param) for fault in error.details] == [(3, "body.model"), (5, "body.model")]
    assert "'b'" in error.details[0].message
    assert "'a' of line 1" in error.details[0].message


def test_other_faults_weigh_more_than_a_second_model() -> None:
    error = refused(check_lines(with_model("a", "1"), with_model("b", "2"), b"{"))
    assert error.code == "batch_invalid_jsonl"
    assert len(error.details) == 2


def test_a_fault_at_the_hundredth_place_weighs_as_much() -> None:
    strangers = [with_model("b", str(n)) for n in range(99)]
    last = request_line("last", method="GET", body={"model": "c"})
    error = refused(check_lines(with_model("a", "first"), *strangers, last))
    assert ("invalid_method", 101) in [(fault.code, fault.line) for fault in error.details]
    assert error.code == "batch_invalid_jsonl"


def test_models_are_compared_exactly() -> None:
    assert codes(check_lines(with_model("a", "1"), with_model("A", "2"), with_model("a ", "3"))) == [
        ("invalid_request", "body.model", 2),
        ("invalid_request", "body.model", 3),
    ]
    escaped = request_line("2").replace(b"gpt", b"\\u0067pt")
    assert check_lines(request_line("1"), escaped).verdict() == MODEL


# --- limits --------------------------------------------------------------------------------------------------------


def test_fifty_thousand_lines_are_fine_and_one_more_is_not() -> None:
    texts = [raw(custom_id=f'"{n}"') for n in range(MAX_LINES + 1)]
    started = time.process_time()
    assert check(b"\n".join(texts[:-1]), 1 << 20).verdict() == MODEL
    too_many = check(b"\n".join(texts), 1 << 20)
    assert codes(too_many) == [("invalid_request", None, MAX_LINES + 1)]
    assert refused(too_many).code == "batch_invalid_jsonl"
    assert too_many.stopped
    assert time.process_time() - started < 5


@pytest.mark.parametrize("wrong", [b"{", b"", b"{}", request_line()])
def test_no_more_than_a_hundred_faults_are_collected(wrong: bytes) -> None:
    done = check(b"\n".join([wrong] * 5_000))
    assert len(done.faults) == MAX_FAULTS
    assert done.stopped
    assert "at least 100" in refused(done).message


def test_a_file_with_a_hundred_faults_stops_looking() -> None:
    done = check(b"{\n" * 100)
    done.feed(b"{\n" * 100)
    done.finish()
    assert len(done.faults) == 100


@pytest.mark.parametrize("block_bytes", [1 << 16, (1 << 20) + 7, 16 << 20])
def test_a_line_without_end_is_one_fault_and_takes_no_memory(block_bytes: int) -> None:
    done = FileCheck()
    held = []
    content = b"x" * (5 * MAX_LINE_BYTES) + b"\n" + request_line()
    for start in range(0, len(content), block_bytes):
        done.feed(content[start : start + block_bytes])
        held.append(len(done._rest))
    done.finish()
    assert codes(done) == [("line_too_long", None, 1)]
    assert max(held) <= MAX_LINE_BYTES + 1


def test_the_longest_legal_line_is_accepted() -> None:
    filler = MAX_LINE_BYTES - len(request_line(body={"x": ""}))
    line = request_line(body={"x": "y" * filler})
    assert len(line) == MAX_LINE_BYTES
    assert check(line + b"\n").verdict() == MODEL


def test_a_short_sample_of_the_message_is_safe_to_print() -> None:
    hostile = "\x1b[31m\u202e\U0001f600" * 50
    done = check_lines(request_line(hostile), request_line(hostile))
    assert done.faults[0].message.isascii()
    assert done.faults[0].message.isprintable()


def test_the_deepest_line_that_is_accepted_can_be_read_from_deeper_in_the_stack() -> None:
    """Accepted here, a line is parsed again in functions whose stack is not the same: it must not fail there."""

    def nested(depth: int) -> bytes:
        return raw(',"t":' + "[" * depth + "]" * depth)

    def from_deeper(frames: int, line: bytes) -> Any:
        return from_deeper(frames - 1, line) if frames else next(iter(jsonl.requests(line)))

    deepest = max(depth for depth in range(0, 3_000, 2) if not check(nested(depth)).faults)
    assert from_deeper(100, nested(deepest)).custom_id == "a"


@pytest.mark.parametrize("text", ["", "[{" * 1_000])
@pytest.mark.parametrize("opener", ["[", '{"a":'])
@pytest.mark.parametrize(
    "where",
    [
        pytest.param('"model":"gpt-4o-mini","messages":[{"content":"TEXT"},{"content":DEEP}]', id="content"),
        pytest.param('"model":"gpt-4o-mini","messages":[{"content":"TEXT","x":DEEP}]', id="message"),
        pytest.param('"model":"gpt-4o-mini","messages":[{"content":"TEXT"},DEEP]', id="messages"),
        pytest.param('"model":"gpt-4o-mini","messages":["TEXT",DEEP]', id="messages that are no objects"),
        pytest.param('"tools":DEEP,"model":"gpt-4o-mini","messages":[{"content":"TEXT"}]', id="body"),
    ],
)
def test_how_deep_a_line_is_counts_wherever_it_is_and_texts_do_not(where: str, opener: str, text: str) -> None:
    def line(levels: int) -> bytes:
        closer = "]" if opener == "[" else "}"
        deep = opener * levels + ("1" if opener != "[" else "") + closer * levels
        body = "{" + where.replace("TEXT", text).replace("DEEP", deep) + "}"
        return raw(body=body)

    assert check(line(MAX_DEPTH - 10)).faults == []
    [fault] = check(line(MAX_DEPTH + 1)).faults
    assert fault.message == f"The line is nested deeper than {MAX_DEPTH} levels."
