"""The times and sizes that bound a run through a chunk."""

from dataclasses import dataclass

from nightshift.results.seals import SEAL_BYTES

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Times are seconds, sizes are bytes."""

    # Finished lines are stored this often. The first time comes soon, so that a worker that is killed again and again
    # still makes progress.
    first_store_seconds: float = 0.5
    store_seconds: float = 4.0
    # A longer pause is left to Step Functions, where waiting is free ...
    long_pause_seconds: float = 5.0
    # ... in steps short enough for a cancel to be noticed within seconds.
    max_wait_seconds: int = 20
    # How long requests in flight may still be answered when a batch is cancelled or expires.
    last_answers_seconds: float = 10.0
    # What has to fit behind the last answer of a slice: writing a result part, sealing, the handler's end.
    slice_margin_seconds: float = 20.0
    # Memory for request bodies, queued and in flight.
    body_bytes: int = 48 * _MIB
    # Memory for finished lines that are held until their segment is sealed.
    held_bytes: int = 32 * _MIB
    # A result part is written as soon as there is so much for it, and ends with the line that makes it so long.
    part_bytes: int = 8 * _MIB
    # A finished segment of more bytes is sealed from its result parts, not from memory.
    seal_bytes: int = SEAL_BYTES
