"""Checks of small files, and lines to check."""

import pytest
from nightshift.core.errors import InvalidFileError
from nightshift.input.file_check import FileCheck

from tests.unit.samples import MODEL


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
    """A line written by hand, for JSON that ``json.dumps`` does not write."""
    inner = body or f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"x"}}]{extra}}}'
    return f'{{"custom_id":{custom_id},"method":{method},"url":"/v1/chat/completions","body":{inner}}}'.encode()
