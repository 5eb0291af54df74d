"""How many requests may be in flight to an upstream, and when sending pauses.

A single refusal among many answers delays only its own line. Refusals of a tenth of the requests lower the level for
all lines, by half of the share that was refused, as in DCTCP (RFC 8257). The level then grows in proportion to itself,
faster the longer nothing is refused, and doubles in each round while it is below the threshold: the level at which the
upstream refused and still answered. Times are seconds on one clock.
"""

import random

from msgspec import Struct

from nightshift.routes.level import Level

# The longest pause that an upstream may ask for. Servers send wrong values, and one request every 15 minutes is cheap.
MAX_RETRY_AFTER = 900.0
REFUSED_SHARE = 0.1
# Of fewer requests a share says little.
ENOUGH = 30
# A level grows by ``rounds / ROUNDS_TO_DOUBLE`` of itself in a round: ``rounds`` without a cut, and this one.
ROUNDS_TO_DOUBLE = 512


class Backoff(Struct, frozen=True):
    """Exponential delays with full jitter, in seconds."""

    base: float = 0.5
    longest: float = 20.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after ``failures`` in a row. ``chance`` is a uniform random number in [0, 1)."""
        return chance * min(self.longest, self.base * 2.0 ** min(failures, 30))


BACKOFF = Backoff()


class Pacer:
    """The limit on requests in flight, between 1 and ``ceiling``, which may change at any time and is at least 1.

    ``level`` is what a pacer has learned that sent to this upstream before. Without one the limit begins at the
    ceiling, which is the worker's part of what the route allows.

    Example:
        pacer = Pacer(64, carried)
        pacer.answered(started_at)  # or send_again_at = pacer.refused(started_at, now, retry_after)
        pacer.ceiling = 32
        carried = pacer.level
    """

    def __init__(
        self,
        ceiling: int,
        level: Level | None = None,
        *,
        backoff: Backoff = BACKOFF,
        rng: random.Random | None = None,
    ) -> None:
        self.ceiling = ceiling
        self._backoff = backoff
        self._rng = rng or random.Random()
        self._cut_at = float("-inf")
        self._rounds = 1.0  # since the last cut
        self._answers = self._refused = 0  # of the requests that are judged together
        self.resume_at = 0.0
        self.adopt(level or Level())

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight."""
        return max(1, int(self._part * self.ceiling))

    @property
    def level(self) -> Level:
        """What was learned so far."""
        return Level(limit=self._part, threshold=self._threshold, refusals=self.refusals, resume_at=self.resume_at)

    def adopt(self, level: Level) -> None:
        """Take over what the workers of the route have learned together: their level, and the longest of their pauses.

        One worker alone cannot find its part: who came first keeps its requests, and the others are refused.
        """
        self.refusals = level.refusals  # cuts since the last answer
        self._part = level.limit
        self._threshold = level.threshold
        self.pause(level.resume_at)

    def pause(self, until: float) -> None:
        """Send nothing before ``until``; a later pause stays."""
        self.resume_at = max(self.resume_at, until)

    def answered(self, started_at: float) -> None:
        """Count an answer, good or bad but no refusal, to a request that was sent at ``started_at``."""
        self._answers += 1
        if started_at < self._cut_at:
            return  # It says nothing of the new level.
        self.refusals = 0
        growth = 1.0 if self._part < self._threshold else min(1.0, self._rounds / ROUNDS_TO_DOUBLE)
        self._part = min(1.0, self._part * (1 + growth / self.limit))
        self._rounds += 1 / self.limit
        if self._answers >= max(ENOUGH, self.limit):
            self._answers = self._refused = 0

    def refused(self, started_at: float, now: float, retry_after: float | None) -> float:
        """Count a refusal of a request that was sent at ``started_at``. Returns when to send it again."""
        retry_after = min(retry_after or 0.0, MAX_RETRY_AFTER)
        # At least the backoff, because an upstream may refuse with "Retry-After: 0" again and again.
        own = now + max(retry_after, self.delay(self.refusals))
        if started_at < self._cut_at:
            return max(own, self.resume_at)  # The last cut has already answered the refusals of its time.
        self._refused += 1
        if self.limit == 1 or self._refused >= REFUSED_SHARE * max(ENOUGH, self.limit):
            self._cut(now, retry_after)
        return max(own, self.resume_at)

    def _cut(self, now: float, retry_after: float) -> None:
        """Lower the level, and pause for ``retry_after`` seconds; from a limit of 1 on for the backoff too."""
        kept = 1 - self._refused / (self._refused + self._answers) / 2
        self._part = max(1 / self.ceiling, self._part * kept)
        if self.refusals == 0:
            self._threshold = self._part
        self.refusals += 1
        self._cut_at = now
        self._rounds, self._answers, self._refused = 1.0, 0, 0
        self.pause(now + max(retry_after, self.delay(self.refusals) if self.limit == 1 else 0.0))

    def delay(self, failures: int) -> float:
        """Seconds of backoff after ``failures`` in a row."""
        return self._backoff.delay(failures, self._rng.random())
