"""How many requests a chunk keeps in flight, and when it pauses.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), with TCP's slow start up to the last level
that worked. Single refusals among many answers are noise that the refused lines wait out themselves; when a
tenth of a round is refused, the upstream means all of us. Times are seconds on any one clock.
"""

import random

BASE_DELAY = 0.5
MAX_DELAY = 20.0
# No upstream is waited for longer than this before it is asked again, whatever it says: clocks and configurations err,
# and one request is little to ask of a quarter of an hour.
MAX_RETRY_AFTER = 900.0
REFUSED_SHARE = 0.1
ROUNDS_TO_RECOVER = 16


def backoff(failures: int, chance: float) -> float:
    """Seconds to wait after ``failures`` in a row, with full jitter: ``chance`` is uniform in [0, 1)."""
    return chance * min(MAX_DELAY, BASE_DELAY * 2.0 ** min(failures, 30))


class Pacer:
    """The limit for one chunk. ``refusals`` in a row and ``resume_at`` carry a pause over from an earlier slice."""

    def __init__(
        self, ceiling: int, refusals: int = 0, resume_at: float = 0.0, rng: random.Random | None = None
    ) -> None:
        self.ceiling = ceiling
        self.limit = ceiling if refusals == 0 else 1
        self.refusals = refusals  # cuts since the last answer
        self.resume_at = resume_at
        self._threshold = float(ceiling)
        self._cut_at = float("-inf")
        self._answers = self._refused = 0
        self._rng = rng or random.Random()

    def answered(self) -> None:
        """The upstream answered a request, well or badly: it is there."""
        self.refusals = 0
        self._answers += 1
        if self.limit < self._threshold:
            self.limit = min(self.ceiling, self.limit + 1)
        if self._answers >= self.limit:
            if self.limit >= self._threshold:
                self.limit = min(self.ceiling, self.limit + max(1, self.ceiling // ROUNDS_TO_RECOVER))
            self._answers = self._refused = 0

    def refused(self, started_at: float, now: float, retry_after: float | None) -> float:
        """The upstream said "not now" to a request sent at ``started_at``. Returns when to send it again."""
        # Never sooner than by ourselves: an upstream that says "at once" and refuses again is not hammered.
        asked = min(retry_after or 0.0, MAX_RETRY_AFTER)
        own = now + max(asked, self.delay())
        if started_at < self._cut_at:
            return max(own, self.resume_at)  # sent before the last cut: old news
        self._refused += 1
        if self._refused >= REFUSED_SHARE * self.limit:
            self.refusals += 1
            self._threshold = max(1.0, self.limit / 2)
            self.limit = max(1, self.limit // 2)
            self._cut_at = now
            self._answers = self._refused = 0
            pause = max(asked, self.delay() if self.limit == 1 else 0.0)
            self.resume_at = max(self.resume_at, now + pause)
        return max(own, self.resume_at)

    def delay(self) -> float:
        return backoff(self.refusals, self._rng.random())
