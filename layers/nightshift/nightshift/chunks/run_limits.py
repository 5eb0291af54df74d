"""The times and sizes that bound a run of a chunk."""

from msgspec import Struct

from nightshift.results.seals import SEAL_BYTES
from nightshift.upstream.pacing import BACKOFF, Backoff

_MIB = 1024 * 1024


class RunLimits(Struct, frozen=True):
    """Times are seconds, sizes are bytes."""

    # The first round of storing comes early, so that a worker that crashes soon after each start still makes progress.
    first_store_seconds: float = 0.5
    store_seconds: float = 8.0
    # How often at least the run renews its part of the route, and sees that its batch was cancelled.
    tick_seconds: float = 4.0
    # A longer pause ends the slice, because waiting in Step Functions costs nothing.
    long_pause_seconds: float = 5.0
    # Longer waits are split, so that a cancelled batch is noticed within seconds.
    max_wait_seconds: int = 20
    # How long requests in flight may still be answered after a batch was cancelled or has expired.
    last_answers_seconds: float = 10.0
    # The time after a slice's last answer that storing the results and ending the invocation take.
    slice_margin_seconds: float = 20.0
    # Results that cannot be stored are given up so long before the invocation ends.
    giving_up_seconds: float = 8.0
    # Request bodies in memory, queued and in flight.
    body_bytes: int = 48 * _MIB
    # Finished lines in memory that wait for their segment to be complete.
    held_bytes: int = 32 * _MIB
    # A result part is written early at this size, and ends with the line that reaches it.
    part_bytes: int = 8 * _MIB
    # A longer segment is sealed from its result parts and not from memory.
    seal_bytes: int = SEAL_BYTES
    backoff: Backoff = BACKOFF
