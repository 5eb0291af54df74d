"""How sealed segments become one file by S3 multipart upload: which bytes are copied by S3, which pass through us."""

from collections.abc import Sequence
from dataclasses import dataclass

# S3: every part but the last is 5 MiB to 5 GiB, and there are at most 10,000.
MIN_PART_BYTES = 5 * 1024 * 1024
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes ``start`` to ``end`` of the object ``key``."""

    key: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def parts(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group ``slices`` into at most ``MAX_PARTS`` parts, in order.

    Every part but the last has at least ``MIN_PART_BYTES``, or more where there would be too many of them. A part of
    one slice of so many bytes can be copied by S3 itself; any other is less than twice that and passes through memory.
    """
    grouped: list[list[Slice]] = []
    small: list[Slice] = []
    gathered = 0
    least = max(MIN_PART_BYTES, -(-sum(piece.size for piece in slices) // (MAX_PARTS - 1)))
    for piece in slices:
        missing = least - gathered
        if small and piece.size >= missing + least:
            # Fill up with the head of a big slice, so that its rest can be copied.
            grouped.append([*small, Slice(piece.key, piece.start, piece.start + missing)])
            small, gathered = [], 0
            piece = Slice(piece.key, piece.start + missing, piece.end)
        if piece.size:
            small.append(piece)
            gathered += piece.size
        if gathered >= least:
            grouped.append(small)
            small, gathered = [], 0
    if small:
        grouped.append(small)
    return grouped
