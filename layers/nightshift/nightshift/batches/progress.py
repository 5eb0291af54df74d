"""How far a batch is, from what its chunks have recorded."""

from collections.abc import Sequence

import msgspec

from nightshift.batches.record import RequestCounts


class AnswerSeconds(msgspec.Struct, frozen=True):
    """How long recent answers took: half of them came within ``p50`` seconds, and nine of ten within ``p90``."""

    p50: float
    p90: float


class ChunkProgress(msgspec.Struct, frozen=True):
    """How many lines of one chunk have ended so far. ``answer_seconds`` is None where single requests answered none."""

    completed: int = 0
    failed: int = 0
    answer_seconds: AnswerSeconds | None = None


class Progress(msgspec.Struct, frozen=True):
    """A batch's ``request_counts`` now, None before its lines are counted, and how long recent answers took."""

    counts: RequestCounts | None
    answer_seconds: AnswerSeconds | None = None


def summed(lines: int, chunks: Sequence[ChunkProgress]) -> Progress:
    """The progress of a batch of so many lines. A chunk's times weigh as much as the lines that it has answered."""
    completed = sum(chunk.completed for chunk in chunks)
    failed = sum(chunk.failed for chunk in chunks)
    timed = [(chunk.completed + chunk.failed, chunk.answer_seconds) for chunk in chunks if chunk.answer_seconds]
    weight = sum(done for done, _ in timed)
    seconds = None
    if weight:
        seconds = AnswerSeconds(
            p50=round(sum(done * times.p50 for done, times in timed) / weight, 3),
            p90=round(sum(done * times.p90 for done, times in timed) / weight, 3),
        )
    return Progress(RequestCounts(lines, completed=completed, failed=failed), seconds)
