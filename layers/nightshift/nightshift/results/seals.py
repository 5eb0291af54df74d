"""Seals: a finished segment as one object, with a summary of what it holds."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec

from nightshift.results.line import OutputLine
from nightshift.results.usage import Usage

# A finished segment of more bytes is not read into memory to be sealed.
SEAL_BYTES = 16 * 1024 * 1024


class SealSummary(msgspec.Struct):
    """What a seal holds: ``answered_bytes`` for the output file, then ``failed_bytes`` for the error file.

    ``leftover_code`` is the error code of those lines that got no answer, None without such lines. A seal
    ``by_reference`` holds the byte ranges of its lines in the result parts instead of the lines. ``batch_lines`` and
    ``batch_usage`` count those lines that a provider's batch API has answered; the other fields count all lines.
    """

    answered_bytes: int
    failed_bytes: int
    completed: int
    failed: int
    usage: Usage
    leftover_code: str | None = msgspec.field(default=None, name="left_over")
    by_reference: bool = msgspec.field(default=False, name="listed")
    batch_lines: int = 0
    batch_usage: Usage = msgspec.field(default_factory=Usage)

    @property
    def lines(self) -> int:
        return self.completed + self.failed


class Sealable(Protocol):
    """A finished line; ``size`` is its bytes with the newline."""

    @property
    def number(self) -> int: ...
    @property
    def answered(self) -> bool: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def by_batch(self) -> bool: ...
    @property
    def size(self) -> int: ...


AnyLine = TypeVar("AnyLine", bound=Sealable)


def in_seal_order(lines: Iterable[AnyLine]) -> tuple[list[AnyLine], SealSummary]:
    """The lines of a segment as a seal holds them: first the answered ones, each half in the order of the input.

    Of several lines with one number the first is used, so that two runs of one chunk cannot double a line.
    """
    first: dict[int, AnyLine] = {}
    for line in lines:
        first.setdefault(line.number, line)
    ordered = [first[number] for number in sorted(first)]
    answered = [line for line in ordered if line.answered]
    failed = [line for line in ordered if not line.answered]
    answered_bytes, failed_bytes = (sum(line.size for line in half) for half in (answered, failed))
    batched = [line for line in ordered if line.by_batch]
    return answered + failed, SealSummary(
        answered_bytes,
        failed_bytes,
        len(answered),
        len(failed),
        _sum(ordered),
        batch_lines=len(batched),
        batch_usage=_sum(batched),
    )


def _sum(lines: Iterable[Sealable]) -> Usage:
    usage = Usage()
    for line in lines:
        if line.usage is not None:
            usage.add(line.usage)
    return usage


def seal(lines: Iterable[OutputLine]) -> tuple[bytes, SealSummary]:
    """The lines of a segment as one object, so that a segment is sealed as a whole or not at all."""
    ordered, summary = in_seal_order(lines)
    return b"".join(piece for line in ordered for piece in (line.content, b"\n")), summary
