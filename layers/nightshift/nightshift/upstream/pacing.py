"""How many requests may be in flight to an upstream, and when sending pauses.

The limit follows additive increase and multiplicative decrease (Chiu and Jain, 1989), with TCP's slow start up to half
of the level at which the upstream last refused. A single refusal among many answers delays only its own line. Refusals
of a tenth of the requests of a round lower the limit for all lines. Times are seconds on one clock.
"""

import random
from dataclasses import dataclass

# The longest Retry-After that is honoured. Servers send wrong values, and one request every 15 minutes is cheap.
MAX_RETRY_AFTER = 900.0
REFUSED_SHARE = 0.1
ROUNDS_TO_RECOVER = 16


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with full jitter, in seconds."""

    base: float = 0.5
    longest: float = 20.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after ``failures`` in a row. ``chance`` is a uniform random number in [0, 1)."""
        return chance * min(self.longest, self.base * 2.0 ** min(failures, 30))


BACKOFF = Backoff()


class Pacer:
    """The limit on requests in flight, between 1 and ``ceiling``.

    ``refusals`` and ``resume_at`` are those of the pacer that sent to this upstream before, so that its pause goes on.
    """

    def __init__(
        self,
        ceiling: int,
        refusals: int = 0,
        resume_at: float = 0.0,
        *,
        backoff: Backoff = BACKOFF,
        rng: random.Random | None = None,
    ) -> None:
        self.ceiling = ceiling
        self.limit = ceiling if refusals == 0 else 1
        self.refusals = refusals  # cuts of the limit since the last answer
        self.resume_at = resume_at
        self._threshold = float(ceiling)
        self._cut_at = float("-inf")
        self._answers = self._refused = 0
        self._backoff = backoff
        self._rng = rng or random.Random()

    def answered(self) -> None:
        """Count an answer that is no refusal, whether it is good or bad."""
        self.refusals = 0
        self._answers += 1
        if self.limit < self._threshold:
            self.limit = min(self.ceiling, self.limit + 1)
        if self._answers >= self.limit:
            if self.limit >= self._threshold:
                self.limit = min(self.ceiling, self.limit + max(1, self.ceiling // ROUNDS_TO_RECOVER))
            self._answers = self._refused = 0

    def refused(self, started_at: float, now: float, retry_after: float | None) -> float:
        """Count a refusal of a request that was sent at ``started_at``. Returns when to send it again."""
        retry_after = min(retry_after or 0.0, MAX_RETRY_AFTER)
        # At least the backoff, because an upstream may refuse with "Retry-After: 0" again and again.
        own = now + max(retry_after, self.delay(self.refusals))
        if started_at < self._cut_at:
            return max(own, self.resume_at)  # The last cut has already answered the refusals of its time.
        self._refused += 1
        if self._refused >= REFUSED_SHARE * self.limit:
            self._cut(now, retry_after)
        return max(own, self.resume_at)

    def _cut(self, now: float, retry_after: float) -> None:
        """Halve the limit, and pause for ``retry_after`` seconds; from a limit of 1 on for the backoff too."""
        self.refusals += 1
        self._threshold = max(1.0, self.limit / 2)
        self.limit = max(1, self.limit // 2)
        self._cut_at = now
        self._answers = self._refused = 0
        pause = max(retry_after, self.delay(self.refusals) if self.limit == 1 else 0.0)
        self.resume_at = max(self.resume_at, now + pause)

    def delay(self, failures: int) -> float:
        """Seconds of backoff after ``failures`` in a row."""
        return self._backoff.delay(failures, self._rng.random())
