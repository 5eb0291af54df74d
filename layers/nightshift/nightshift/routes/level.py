"""What a route's workers learn about its upstream: the level at which it answers, and a pause that it asked for."""

import msgspec

# A smaller change of the level is not worth a write.
_NOTABLE = 0.1
# What was learned longer ago says nothing of today.
_REMEMBERED_SECONDS = 900.0


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """``limit`` and ``threshold`` of a worker's pacer as parts of its ceiling, so that they fit every worker.

    ``refusals`` counts cuts since the last answer. Nothing is sent before ``resume_at``. ``at`` is when it was learned.
    """

    limit: float = 1.0
    threshold: float = 1.0
    refusals: int = 0
    resume_at: float = 0.0
    at: float = 0.0


def differs(level: Level, known: Level) -> bool:
    """Whether ``level`` tells the other workers something that ``known`` does not."""
    return (
        abs(level.limit - known.limit) > _NOTABLE * known.limit
        or level.resume_at > known.resume_at
        or (level.refusals == 0) != (known.refusals == 0)
    )


def is_news(level: Level, known: Level, now: float) -> bool:
    """Whether ``level`` was learned after ``known``, and not too long ago."""
    return level.at > known.at and level.at > now - _REMEMBERED_SECONDS
