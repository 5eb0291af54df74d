"""The check of an input file: any bytes have a verdict or faults, and raise nothing else."""

import json
import random
import time
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nightshift.core.surrogates import without_lone_surrogates
from nightshift.input.file_check import MAX_FAULTS, MAX_LINES, FileCheck
from nightshift.input.line_check import MAX_LINE_BYTES
from nightshift.input.request import requests

from tests.unit.input.checks import check, check_lines, codes, raw, refused
from tests.unit.samples import ENDPOINT, MODEL, request_line

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
def test_any_bytes_in_any_blocks_have_a_verdict(content: bytes, cut: int) -> None:
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
def test_ends_divide_a_valid_file_into_its_lines(content: bytes) -> None:
    done = check(content)
    if done.faults:
        return
    pieces = [content[start:end] for start, end in pairwise([0, *done.ends])]
    assert content.startswith(b"".join(pieces))
    assert not content[done.ends[-1] :].strip()
    lines = content[: done.ends[-1]].removesuffix(b"\n").split(b"\n")
    assert [piece.rstrip(b"\n") for piece in pieces] == lines


@given(files)
@settings(max_examples=300)
def test_other_parsers_read_a_valid_file(content: bytes) -> None:
    done = check(content)
    if done.faults:
        return
    whole = content[: done.ends[-1]]
    texts = whole.removesuffix(b"\n").split(b"\n")
    for text, parsed in zip(texts, requests(whole), strict=True):
        read = json.loads(without_lone_surrogates(text), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert (read["method"], read["url"]) == ("POST", ENDPOINT)
        assert read["custom_id"] == parsed.custom_id
        assert json.loads(bytes(parsed.body)) == read["body"]
        assert read["body"]["model"] == done.model
        assert isinstance(read["body"]["messages"], list)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 300))
def test_faults_carry_their_line_number(right: list[bool], cut: int) -> None:
    texts = [request_line(f"id-{n}") if good else b"{" for n, good in enumerate(right)]
    done = check(b"\n".join(texts), cut)
    assert [fault.line for fault in done.faults] == [n for n, good in enumerate(right, 1) if not good]


def test_random_mutations_never_raise() -> None:
    chance = random.Random(3)
    legal = b"\n".join(request_line(f"id-{n}", body={"content": "é\U0001f600\\"}) for n in range(3))
    for _ in range(2_000):
        content = bytearray(legal)
        for _ in range(chance.randint(1, 3)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        done = check(bytes(content))
        if not done.faults:
            assert len(list(requests(bytes(content)))) == len(done.ends)


# --- valid files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("between", [b"\n", b"\r\n"])
def test_line_endings_of_all_systems_are_valid(between: bytes, ending: bytes) -> None:
    content = between.join([request_line("a"), request_line("b")]) + ending
    done = check(content)
    assert done.verdict() == MODEL
    assert done.ends[-1] == len(content)
    assert [parsed.custom_id for parsed in requests(content)] == ["a", "b"]


def test_the_last_of_repeated_keys_is_used() -> None:
    first = raw().replace(b'"custom_id":"a"', b'"custom_id":"a","custom_id":"b"')
    assert [parsed.custom_id for parsed in requests(first)] == ["b"]
    assert codes(check_lines(first, raw(custom_id='"b"'))) == [("duplicate_custom_id", "custom_id", 2)]
    assert codes(check_lines(raw(',"stream":false,"stream":true'))) == [("streaming_unsupported", "body.stream", 1)]


# --- faults --------------------------------------------------------------------------------------------------------


def test_every_repeated_custom_id_is_a_fault() -> None:
    done = check_lines(request_line("a"), request_line("b"), request_line("a"), request_line("a"))
    assert codes(done) == [("duplicate_custom_id", "custom_id", 3), ("duplicate_custom_id", "custom_id", 4)]
    assert "'a'" in done.faults[0].message


def test_custom_ids_are_compared_without_escapes() -> None:
    assert codes(check_lines(raw(custom_id='"\\u0061"'), raw())) == [("duplicate_custom_id", "custom_id", 2)]


@pytest.mark.parametrize("length", [64, 65, 100_000])
def test_long_custom_ids_are_compared_whole(length: int) -> None:
    one, other = "x" * (length - 1) + "1", "x" * (length - 1) + "2"
    assert not check_lines(request_line(one), request_line(other)).faults
    assert codes(check_lines(request_line(one), request_line(one))) == [("duplicate_custom_id", "custom_id", 2)]


def test_huge_custom_ids_take_little_memory() -> None:
    done = check_lines(*[request_line("x" * 1_000_000)] * 20)
    assert len(done.faults) == 19
    assert all(len(fault.message) < 200 for fault in done.faults)
    assert sum(map(len, done._custom_ids)) < 1_000


def test_a_line_with_a_fault_uses_its_custom_id() -> None:
    assert codes(check_lines(request_line(method="GET"), request_line())) == [
        ("invalid_method", "method", 1),
        ("duplicate_custom_id", "custom_id", 2),
    ]


def test_all_faults_are_in_line_order() -> None:
    done = check_lines(b"{", request_line("a"), b"", request_line("b", method="GET"), request_line("a"))
    assert codes(done) == [
        ("invalid_json_line", None, 1),
        ("invalid_json_line", None, 3),
        ("invalid_method", "method", 4),
        ("duplicate_custom_id", "custom_id", 5),
    ]
    error = refused(done)
    assert (error.status, error.code, error.param) == (400, "batch_invalid_jsonl", "input_file_id")
    assert error.message.startswith("The input file is not valid. Line 1: The line is not valid JSON")
    assert error.message.endswith("There are 4 problems in all; error.details lists them.")


@pytest.mark.parametrize("content", [b""])
def test_an_empty_file_is_refused(content: bytes) -> None:
    error = refused(check(content))
    assert error.code == "batch_invalid_jsonl"
    assert [(fault.line, fault.message) for fault in error.details] == [(None, "The file is empty.")]


@pytest.mark.parametrize("content", [b"\n", b"\n\n", b"\r\n", b" \n", b"  "])
def test_a_file_of_blank_lines_is_empty(content: bytes) -> None:
    assert [(fault.code, fault.line) for fault in check(content).faults] == [("empty_file", None)]


@pytest.mark.parametrize("position", [0, 1])
def test_a_blank_line_before_another_is_a_fault(position: int) -> None:
    texts = [request_line("a"), request_line("b")]
    texts.insert(position, b"")
    assert codes(check(b"\n".join(texts) + b"\n")) == [("invalid_json_line", None, position + 1)]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n \t\n\n", b"\n   "])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_blank_lines_at_the_end_are_no_lines(end: bytes, size: int) -> None:
    lines = request_line("a") + b"\n" + request_line("b")
    done = check(lines + end, size)
    assert (done.faults, len(done.ends)) == ([], 2)
    assert done.ends[-1] == len(lines) + len(end.split(b"\n")[0]) + 1


def test_half_an_emoji_is_replaced() -> None:
    line = request_line("a").replace(b"Hello.", b"Hi \\ud83d").replace(b'"a"', b'"\\ude00"')
    done = check_lines(line, line)
    assert codes(done) == [("duplicate_custom_id", "custom_id", 2)]
    [request] = requests(line)
    assert request.custom_id == "\ufffd"
    assert json.loads(bytes(request.body))["messages"][0]["content"] == "Hi \ufffd"


def test_blank_lines_count_in_the_next_fault() -> None:
    assert codes(check_lines(request_line("a"), b"", b" ", b"{"))[-1] == ("invalid_json_line", None, 4)


def test_countless_blank_lines_stop_the_check() -> None:
    done = check(request_line() + b"\n" * 1_000_000)
    assert done.stopped
    assert len(done.faults) == 100


def test_a_byte_order_mark_is_named() -> None:
    done = check(b"\xef\xbb\xbf" + request_line())
    assert codes(done) == [("invalid_json_line", None, 1)]
    assert "byte order mark" in done.faults[0].message
    assert codes(check_lines(request_line(), b"\xef\xbb\xbf" + request_line("b"))) == [("invalid_json_line", None, 2)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused(encoding: str) -> None:
    assert refused(check(request_line().decode().encode(encoding))).code == "batch_invalid_jsonl"


# --- one model -----------------------------------------------------------------------------------------------------


def line_for(model: str, custom_id: str) -> bytes:
    return request_line(custom_id, body={"model": model})


def test_lines_with_another_model_are_faults() -> None:
    done = check_lines(*[line_for(model, str(n)) for n, model in enumerate("aabab")])
    error = refused(done)
    assert error.code == "batch_multiple_models"
    assert [(fault.line, fault.param) for fault in error.details] == [(3, "body.model"), (5, "body.model")]
    assert "'b'" in error.details[0].message
    assert "'a' of line 1" in error.details[0].message
    assert error.message.startswith("The input file has more than one model; a batch has one. Line 3: ")


def test_any_other_fault_decides_the_code() -> None:
    error = refused(check_lines(line_for("a", "1"), line_for("b", "2"), b"{"))
    assert error.code == "batch_invalid_jsonl"
    assert len(error.details) == 2


def test_the_hundredth_fault_can_decide_the_code() -> None:
    mismatches = [line_for("b", str(n)) for n in range(99)]
    last = request_line("last", method="GET", body={"model": "c"})
    error = refused(check_lines(line_for("a", "first"), *mismatches, last))
    assert ("invalid_method", 101) in [(fault.code, fault.line) for fault in error.details]
    assert error.code == "batch_invalid_jsonl"


def test_models_are_compared_exactly() -> None:
    assert codes(check_lines(line_for("a", "1"), line_for("A", "2"), line_for("a ", "3"))) == [
        ("model_mismatch", "body.model", 2),
        ("model_mismatch", "body.model", 3),
    ]
    escaped = request_line("2").replace(b"gpt", b"\\u0067pt")
    assert check_lines(request_line("1"), escaped).verdict() == MODEL


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_file_has_at_most_fifty_thousand_lines() -> None:
    texts = [raw(custom_id=f'"{n}"') for n in range(MAX_LINES + 1)]
    started = time.process_time()
    assert check(b"\n".join(texts[:-1]), 1 << 20).verdict() == MODEL
    too_many = check(b"\n".join(texts), 1 << 20)
    assert codes(too_many) == [("invalid_request", None, MAX_LINES + 1)]
    assert refused(too_many).code == "batch_invalid_jsonl"
    assert too_many.stopped
    assert time.process_time() - started < 5


@pytest.mark.parametrize("wrong", [b"{", b"", b"{}", request_line()])
def test_at_most_a_hundred_faults_are_collected(wrong: bytes) -> None:
    done = check(b"\n".join([wrong] * 5_000))
    assert len(done.faults) == MAX_FAULTS
    assert done.stopped
    assert "at least 100" in refused(done).message


def test_a_hundred_faults_stop_the_check() -> None:
    done = check(b"{\n" * 100)
    done.feed(b"{\n" * 100)
    done.finish()
    assert len(done.faults) == 100


@pytest.mark.parametrize("block_bytes", [1 << 18, (1 << 20) + 7, 16 << 20])
def test_an_endless_line_takes_little_memory(block_bytes: int) -> None:
    done = FileCheck()
    held = []
    content = b"x" * (5 * MAX_LINE_BYTES) + b"\n" + request_line()
    for start in range(0, len(content), block_bytes):
        done.feed(content[start : start + block_bytes])
        held.append(len(done._rest))
    done.finish()
    assert codes(done) == [("line_too_long", None, 1)]
    assert max(held) <= MAX_LINE_BYTES + 1


def test_a_hostile_custom_id_is_safe_to_print() -> None:
    hostile = "\x1b[31m\u202e\U0001f600" * 50
    done = check_lines(request_line(hostile), request_line(hostile))
    assert done.faults[0].message.isascii()
    assert done.faults[0].message.isprintable()
