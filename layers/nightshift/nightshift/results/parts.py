"""Result parts: finished lines, in any order, as one object."""

from collections.abc import Iterable, Iterator

import msgspec

from nightshift.core.concat import ByteRange
from nightshift.results.line import OutputLine
from nightshift.results.usage import Usage

_encode = msgspec.json.Encoder().encode


class _Head(msgspec.Struct, array_like=True):
    """What stands before the bytes of a line."""

    number: int
    answered: bool
    usage: Usage | None
    by_batch: bool = False


_decode_head = msgspec.json.Decoder(_Head).decode


class PlacedLine(msgspec.Struct, frozen=True):
    """A finished line of which only the place in a result part is in memory."""

    number: int
    answered: bool
    usage: Usage | None
    by_batch: bool
    place: ByteRange

    @classmethod
    def of(cls, line: OutputLine, key: str, offset: int) -> "PlacedLine":
        """``line``, whose content starts at ``offset`` of the result part ``key``."""
        return cls(line.number, line.answered, line.usage, line.by_batch, ByteRange(key, offset, offset + line.size))

    @property
    def size(self) -> int:
        """The bytes of the line with its newline."""
        return self.place.size


def encode_part(lines: Iterable[OutputLine]) -> bytes:
    """A result part. For each line it has a head, a newline, the line as in the output file, and a newline."""
    pieces: list[bytes] = []
    for line in lines:
        pieces += (_encode(_Head(line.number, line.answered, line.usage, line.by_batch)), b"\n", line.content, b"\n")
    return b"".join(pieces)


def decode_part(part: bytes) -> Iterator[tuple[int, OutputLine]]:
    """The lines of a result part, each with the offset in bytes of its content; a newline follows the content."""
    start = 0
    while start < len(part):
        head_end = part.index(b"\n", start)
        end = part.index(b"\n", head_end + 1)
        head = _decode_head(part[start:head_end])
        yield head_end + 1, OutputLine(head.number, part[head_end + 1 : end], head.answered, head.usage, head.by_batch)
        start = end + 1
