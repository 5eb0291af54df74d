"""What a worker may do until its next tick."""

from typing import Literal

import msgspec

from nightshift.routes.level import Level

Reason = Literal["", "queue", "paused", "broken", "replaced"]


class Permit(msgspec.Struct, frozen=True):
    """What a worker may do until its next tick.

    At most ``ceiling`` requests in flight, and its part of the route's requests and tokens a minute, where it sets any.
    Nothing new is sent after ``until`` either, because others take the lease for expired soon after.
    With a ceiling of 0 nothing new is sent: the slice ends when nothing is in flight, and comes again after
    ``pause`` seconds, unless there ``is_near`` room for it: within seconds. A ``probe`` is a single request to a broken
    route. ``level`` is what other workers of the route have learned since the last permit.
    """

    ceiling: int
    until: float = 0.0
    pause: int = 0
    reason: Reason = ""
    probe: bool = False
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    level: Level | None = None
    is_near: bool = False
