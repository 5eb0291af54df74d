"""The requests of an input file that was checked."""

from collections.abc import Iterator

import msgspec

from nightshift.core.surrogates import may_have_surrogates, without_lone_surrogates


class Request(msgspec.Struct, frozen=True):
    """One line of the file. ``body`` is the caller's own bytes, but for lone surrogates."""

    custom_id: str
    body: msgspec.Raw


_decode_request = msgspec.json.Decoder(Request).decode


def requests(block: bytes) -> Iterator[Request]:
    """The requests of a block of whole lines that passed ``FileCheck``, in order."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if may_have_surrogates(block):
        return map(_decode_request, map(without_lone_surrogates, lines))
    return map(_decode_request, lines)
