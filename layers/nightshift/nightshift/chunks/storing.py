"""How a ledger and a chunk store meet: the ledger starts from what is stored, and what it finishes is stored."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from nightshift.chunks.chunk import ChunkStore
from nightshift.chunks.ledger import Ledger
from nightshift.input.layout import Segment
from nightshift.upstream.byte_budget import ByteBudget


@dataclass(frozen=True, slots=True)
class Stored:
    """What a round of storing has written: the segments that can now be sealed from result parts, and the totals."""

    seals_from_parts: Sequence[Segment]
    completed: int
    failed: int


def restore(ledger: Ledger, segments: list[Segment], store: ChunkStore) -> None:
    """Start ``ledger`` from the seals and the result parts that earlier runs stored. Blocks."""
    unsealed = ledger.restore_seals(segments, store.seals(segments))
    if unsealed:
        for part in store.result_parts(unsealed[0].first_line, unsealed[-1].end_line):
            ledger.restore_part(part)


async def store_lines(ledger: Ledger, store: ChunkStore, budget: ByteBudget) -> Stored:
    """Seal complete segments, write the other finished lines as result parts, and discharge them from ``budget``."""
    unstored = ledger.take_unstored()
    for segment, lines in unstored.seals:
        await asyncio.to_thread(store.seal, segment, lines)
    for part in unstored.parts:
        await asyncio.to_thread(store.write_result_part, part)
    ledger.stored(unstored)
    budget.discharge(unstored.size)
    return Stored(unstored.seals_from_parts, unstored.completed, unstored.failed)


async def seal_stored(stored: Stored, store: ChunkStore) -> None:
    """Seal segments from result parts, then record the progress.

    This is a step of its own, because it takes as much memory as ``store_lines`` has freed.
    """
    for segment in stored.seals_from_parts:
        await asyncio.to_thread(store.seal_from_parts, segment)
    await asyncio.to_thread(store.record_progress, stored.completed, stored.failed)
