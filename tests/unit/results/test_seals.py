"""A seal has the lines of a segment in order, each once."""

from hypothesis import given
from hypothesis import strategies as st
from nightshift.results.line import OutputLine
from nightshift.results.seals import seal
from nightshift.results.usage import Usage

from tests.unit.results.bodies import output_lines


@given(st.lists(output_lines, max_size=20))
def test_a_seal_sorts_and_splits_its_lines(lines: list[OutputLine]) -> None:
    content, summary = seal(lines)
    first = {line.number: line for line in reversed(lines)}
    ordered = [first[number] for number in sorted(first)]
    answered = [line.content for line in ordered if line.answered]
    failed = [line.content for line in ordered if not line.answered]
    assert content[: summary.answered_bytes] == b"".join(line + b"\n" for line in answered)
    assert content[summary.answered_bytes :] == b"".join(line + b"\n" for line in failed)
    assert (summary.completed, summary.failed) == (len(answered), len(failed))
    assert summary.answered_bytes + summary.failed_bytes == len(content)
    assert summary.usage.input_tokens == sum(line.usage.input_tokens for line in ordered if line.usage)
    assert summary.usage.total_tokens == sum(line.usage.total_tokens for line in ordered if line.usage)


def test_the_first_of_two_answers_is_sealed() -> None:
    one, other = OutputLine(0, b"1", True, Usage(1)), OutputLine(0, b"2", False, Usage(2))
    content, summary = seal([one, other])
    assert (content, summary.completed, summary.failed, summary.usage) == (b"1\n", 1, 0, Usage(1))
