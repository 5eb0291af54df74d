"""How sealed segments become one file by S3 multipart upload: which bytes are copied by S3, which pass through us."""

from collections.abc import Iterable
from dataclasses import dataclass

# S3: every part but the last is 5 MiB to 5 GiB, and there are at most 10,000.
MIN_PART_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes ``start`` to ``end`` of the object ``key``."""

    key: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def parts(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Group ``slices`` into parts, in order.

    A part of one slice of at least ``MIN_PART_BYTES`` can be copied by S3 itself; any other is less than twice
    that and passes through our memory. Every part but the last has at least ``MIN_PART_BYTES``.
    """
    grouped: list[list[Slice]] = []
    small: list[Slice] = []
    gathered = 0
    for piece in slices:
        missing = MIN_PART_BYTES - gathered
        if small and piece.size >= missing + MIN_PART_BYTES:
            # Fill up with the head of a big slice, so that its rest can be copied.
            grouped.append([*small, Slice(piece.key, piece.start, piece.start + missing)])
            small, gathered = [], 0
            piece = Slice(piece.key, piece.start + missing, piece.end)
        if piece.size:
            small.append(piece)
            gathered += piece.size
        if gathered >= MIN_PART_BYTES:
            grouped.append(small)
            small, gathered = [], 0
    if small:
        grouped.append(small)
    return grouped
