"""The plan and the results of a batch in the bucket, against moto."""

import json

import msgspec
import pytest
from nightshift.core import aws, settings
from nightshift.core.concat import ByteRange
from nightshift.input import plan
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.results import store as results
from nightshift.results.line import OutputLine, answered_line, failed_line
from nightshift.results.seals import SealSummary

from tests.integration.support import object_keys

SEGMENT = Segment(0, 100, 10, 3)


def line(number: int, *, answered: bool = True, text: str = "x") -> OutputLine:
    if answered:
        return answered_line("batch_1", number, f"r{number}", 200, "req_1", b'{"text":"%b"}' % text.encode(), None)
    return failed_line("batch_1", number, f"r{number}", "internal_error", text)


def stored(key: str) -> bytes:
    return aws.client("s3").get_object(Bucket=settings.bucket(), Key=key)["Body"].read()


# --- plan -----------------------------------------------------------------------------------------------------------


def test_a_plan_comes_back_as_written() -> None:
    segments = [Segment(0, 10, 0, 2), Segment(10, 20, 2, 1)]
    tasks = [Task("acct_1", "batch_1", chunk, segments, {"carry": {}}) for chunk in range(3)]
    plan.write("batch_1", tasks)
    assert plan.read("batch_1") == tasks


def test_a_stored_plan_keeps_its_format() -> None:
    """Running batches have their tasks in the bucket and in the state machine."""
    plan.write("batch_1", [Task("acct_1", "batch_1", 0, [Segment(0, 10, 0, 2)])])
    task = (
        b'{"account_id":"acct_1","batch_id":"batch_1","chunk":0,"segments":[[0,10,0,2]],"slice":{},"execution":null%b}'
    )
    assert stored("work/batch_1/plan.json") == b"[%b]" % task % b',"scout":false'
    before_scouts = msgspec.json.decode(b"[%b]" % task % b"", type=list[Task])
    assert plan.read("batch_1") == before_scouts


def test_a_deleted_plan_is_none() -> None:
    assert plan.read("batch_1") is None


# --- result parts ---------------------------------------------------------------------------------------------------


def test_result_parts_are_found_by_their_lines() -> None:
    results.write_result_part("batch_1", 0, [line(12), line(3)])
    results.write_result_part("batch_1", 0, [line(13), line(14, answered=False)])
    results.write_result_part("batch_1", 1, [line(4)])
    results.write_result_part("batch_10", 0, [line(5)])

    def numbers(first: int, end: int) -> list[int]:
        return sorted(found.number for part in results.read_result_parts("batch_1", 0, first, end) for found in part)

    assert numbers(0, 100) == [3, 12, 13, 14]
    assert numbers(12, 14) == [12, 13]
    assert numbers(4, 12) == []
    assert numbers(14, 15) == [14]
    [[kept]] = results.read_result_parts("batch_1", 0, 14, 15)
    assert kept == line(14, answered=False)


# --- seals ----------------------------------------------------------------------------------------------------------


def test_a_segment_is_sealed_whole_and_once() -> None:
    first = results.write_seal("batch_1", SEGMENT, [line(12), line(10), line(11, answered=False)])
    assert (first.completed, first.failed) == (2, 1)
    second = results.write_seal("batch_1", SEGMENT, [line(number, text="second") for number in (10, 11, 12)])
    assert second == first == results.read_seal("batch_1", SEGMENT)
    expected = b"".join(done.content + b"\n" for done in (line(10), line(12), line(11, answered=False)))
    assert stored("work/batch_1/sealed/00010") == expected


def test_a_stored_summary_keeps_its_format() -> None:
    written = results.write_seal("batch_1", SEGMENT, [line(number) for number in (10, 11, 12)], "batch_expired")
    found = aws.client("s3").head_object(Bucket=settings.bucket(), Key="work/batch_1/sealed/00010")
    assert json.loads(found["Metadata"]["summary"]) == {
        "answered_bytes": written.answered_bytes,
        "failed_bytes": 0,
        "completed": 3,
        "failed": 0,
        "usage": [0, 0, 0, 0, 0],
        "left_over": "batch_expired",
        "listed": False,
        "batch_lines": 0,
        "batch_usage": [0, 0, 0, 0, 0],
    }


def test_a_seal_by_reference_keeps_its_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SEAL_BYTES", 0)
    key = results.write_result_part("batch_1", 0, [line(number) for number in (10, 11, 12)])
    results.seal_from_parts("batch_1", 0, SEGMENT)
    places = json.loads(stored("work/batch_1/sealed/00010"))
    assert [place[0] for place in places] == [key] * 3
    assert [stored(key)[start:end] for _, start, end in places] == [line(n).content + b"\n" for n in (10, 11, 12)]


def test_an_incomplete_segment_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="2 lines for a segment of 3"):
        results.write_seal("batch_1", SEGMENT, [line(10), line(11), line(11)])
    assert results.read_seal("batch_1", SEGMENT) is None
    assert not object_keys()


def sealed_bytes(summary: SealSummary) -> tuple[bytes, bytes]:
    """The bytes of ``SEGMENT`` for the output file, and those for the error file."""

    def read(place: ByteRange) -> bytes:
        return stored(place.key)[place.start : place.end]

    answered, failed = results.byte_ranges("batch_1", SEGMENT, summary)
    return b"".join(map(read, answered)), b"".join(map(read, failed))


@pytest.mark.parametrize("seal_bytes", [0, 200, 2**24])
def test_a_seal_from_parts_has_the_same_bytes(seal_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SEAL_BYTES", seal_bytes)
    results.write_result_part("batch_1", 0, [line(12), line(9), line(13)])
    results.write_result_part("batch_1", 0, [line(10)])

    def leftover_lines(done: set[int]) -> list[OutputLine]:
        assert done == {10, 12}
        return [line(11, answered=False)]

    summary = results.seal_from_parts("batch_1", 0, SEGMENT, leftover_lines, "batch_cancelled")

    assert summary.by_reference == (seal_bytes < 2**24)
    assert (summary.completed, summary.failed, summary.leftover_code) == (2, 1, "batch_cancelled")
    assert results.read_seal("batch_1", SEGMENT) == summary
    expected = [
        b"".join(done.content + b"\n" for done in half) for half in ([line(10), line(12)], [line(11, answered=False)])
    ]
    assert list(sealed_bytes(summary)) == expected
    assert [summary.answered_bytes, summary.failed_bytes] == list(map(len, expected))


@pytest.mark.parametrize("seal_bytes", [0, 2**24])
def test_lines_in_two_parts_are_sealed_once(seal_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SEAL_BYTES", seal_bytes)
    for text in ("first", "second"):
        results.write_result_part("batch_1", 0, [line(number, text=text) for number in (10, 11, 12)])

    def none_is_left(_: set[int]) -> list[OutputLine]:
        raise AssertionError

    summary = results.seal_from_parts("batch_1", 0, SEGMENT, none_is_left, "batch_cancelled")

    assert (summary.completed, summary.failed, summary.leftover_code) == (3, 0, None)
    answered = [json.loads(each) for each in sealed_bytes(summary)[0].splitlines()]
    assert [each["custom_id"] for each in answered] == ["r10", "r11", "r12"]
    assert len(sealed_bytes(summary)[0]) == summary.answered_bytes


def test_sealing_from_parts_again_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = results.write_seal("batch_1", SEGMENT, [line(number) for number in (10, 11, 12)])
    results.write_result_part("batch_1", 0, [line(number, text="second") for number in (10, 11, 12)])
    monkeypatch.setattr(results, "SEAL_BYTES", 0)
    assert results.seal_from_parts("batch_1", 0, SEGMENT) == first


def test_parts_without_every_line_are_not_sealed() -> None:
    results.write_result_part("batch_1", 0, [line(10), line(12)])
    with pytest.raises(ValueError, match="2 lines for a segment of 3"):
        results.seal_from_parts("batch_1", 0, SEGMENT)


def test_a_deleted_result_part_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SEAL_BYTES", 0)
    key = results.write_result_part("batch_1", 0, [line(number) for number in (10, 11, 12)])
    summary = results.seal_from_parts("batch_1", 0, SEGMENT)
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=key)
    with pytest.raises(results.ResultPartGoneError):
        results.byte_ranges("batch_1", SEGMENT, summary)
    results.delete_seal("batch_1", SEGMENT)
    assert results.read_seal("batch_1", SEGMENT) is None


def test_many_seals_are_read_in_order() -> None:
    segments = [Segment(0, 1, number, 1) for number in range(40)]
    for number in (3, 30):
        results.write_seal("batch_1", segments[number], [line(number)])
    found = results.read_seals("batch_1", segments)
    assert [number for number, summary in enumerate(found) if summary] == [3, 30]
