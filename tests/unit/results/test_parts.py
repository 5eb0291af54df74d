"""Result parts give back the lines that they were written with."""

from hypothesis import given
from hypothesis import strategies as st
from nightshift.results.completion import replace_model
from nightshift.results.line import OutputLine, answered_line, failed_line
from nightshift.results.parts import PlacedLine, decode_part, encode_part
from nightshift.results.usage import Usage
from nightshift.upstream.answer import is_json_object

from tests.unit.results.bodies import bodies, output_lines


def test_a_part_keeps_its_format() -> None:
    lines = [OutputLine(7, b'{"a":1}', True, Usage(1, 2, 3, 4, 5), True), OutputLine(0, b"{}", False)]
    assert encode_part(lines) == b'[7,true,[1,2,3,4,5],true]\n{"a":1}\n[0,false,null,false]\n{}\n'


def test_a_part_of_an_earlier_version_is_read() -> None:
    assert [line for _, line in decode_part(b"[0,false,null]\n{}\n")] == [OutputLine(0, b"{}", False)]


@given(st.lists(output_lines, max_size=10))
def test_a_part_is_read_as_written(lines: list[OutputLine]) -> None:
    assert [line for _, line in decode_part(encode_part(lines))] == lines


@given(st.lists(output_lines, max_size=10))
def test_offsets_cut_lines_with_their_newlines(lines: list[OutputLine]) -> None:
    part = encode_part(lines)
    placed = [PlacedLine.of(line, "key", offset) for offset, line in decode_part(part)]
    assert [part[each.place.start : each.place.end] for each in placed] == [line.content + b"\n" for line in lines]
    assert [each.size for each in placed] == [line.size for line in lines]


@given(body=bodies(), custom_id=st.text(max_size=5))
def test_real_lines_come_back_from_a_part(body: bytes, custom_id: str) -> None:
    lines = [
        answered_line("batch_1", 0, custom_id, 200, "r", body, None),
        failed_line("batch_1", 1, custom_id, "c", "m"),
    ]
    assert [line for _, line in decode_part(encode_part(lines))] == lines


def test_the_deepest_answer_is_read_from_a_part() -> None:
    def nested(depth: int) -> bytes:
        return b'{"x":' + b"[" * depth + b"]" * depth + b"}"

    deepest = max(depth for depth in range(0, 3_000, 2) if is_json_object(nested(depth)))
    line = answered_line("batch_1", 0, "a", 200, "r", replace_model(nested(deepest), "m"), None)
    [(_, kept)] = decode_part(encode_part([line]))
    assert kept == line
