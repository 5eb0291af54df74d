"""The lines of files, and which lines of an input file ended in an error file."""

from collections.abc import Iterable, Iterator

import msgspec

from nightshift.core.surrogates import without_lone_surrogates


class _Named(msgspec.Struct):
    custom_id: str | None


_decode = msgspec.json.Decoder(_Named).decode


def lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file that comes in ``blocks``, without their newlines."""
    rest = b""
    for block in blocks:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest


def custom_id_of(line: bytes) -> str | None:
    """The ``custom_id`` of a legal line of an input, output or error file."""
    return _decode(without_lone_surrogates(line)).custom_id


def failed_lines(lines: Iterable[bytes], errors: Iterable[bytes]) -> Iterator[bytes]:
    """Those of the input's ``lines`` that have one in ``errors``, the lines of its batch's error file. Both are in the
    order of the input.

    Raises:
        ValueError: an error is of none of the lines.
    """
    failed = map(custom_id_of, errors)
    wanted = next(failed, None)
    for line in lines:
        if wanted is None:
            return
        if custom_id_of(line) == wanted:
            yield line
            wanted = next(failed, None)
    if wanted is not None:
        raise ValueError("the error file has a line that the input has not")
