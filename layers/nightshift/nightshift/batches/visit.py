"""A visit of a worker at a chunk, as a batch's timeline shows it."""

from typing import Literal

import msgspec

Outcome = Literal["runs", "done", "more", "waits", "failed"]
WaitsFor = Literal["route", "provider", "retries", "spend_limit"]


class Visit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one visit does, and how it ended. Times are seconds since 1970.

    ``attempt`` is above 1 after visits that were killed, or for which Lambda had no room. The worker ``runs``, or was
    killed, which its chunk's next visit shows; or the chunk is ``done``; has ``more`` to do, and is visited again at
    once; ``waits`` until ``waits_until``, for its route, the provider's batch, the time to send lines again, or its
    account's limit; or has ``failed`` in every attempt, and is visited again then.
    """

    chunk: int
    began_at: float
    ended_at: float | None = None
    outcome: Outcome = "runs"
    attempt: int = 1
    waits_until: float | None = None
    waits_for: WaitsFor | None = None
    requests_sent: int = 0
    requests_retried: int = 0
    requests_refused: int = 0
