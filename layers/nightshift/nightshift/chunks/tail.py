"""Until when a slice starts requests, from how long the upstream has taken to answer so far. Times are seconds.

A request that has no answer when the slice ends is cut off. The next slice sends it again, at its start, and it may be
paid for twice. So a slice starts requests while ``ANSWERED_SHARE`` of the answers come within what is left.
"""

import math
from collections.abc import Mapping

ANSWERED_SHARE = 0.9
# The longest request may take so much of a slice. The rest is for reading what is stored, and for starting.
REQUEST_SHARE = 0.9
# Fewer answers say little of the slow ones.
_ENOUGH = 20
# Latencies are counted in buckets, each an eighth longer than the one before.
_STEP = math.log(1.125)


def request_seconds(timeout_seconds: float, slice_seconds: float) -> float:
    """How long a request may take: the route's timeout, but no longer than a slice allows that lasts so long."""
    return min(timeout_seconds, REQUEST_SHARE * max(1.0, slice_seconds))


class Latencies:
    """How long answers took. ``counts`` has their number by bucket, as ``carry()`` of the last slice gave it.

    Example:
        latencies.add(12.5)
        latencies.quantile(0.9)
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts = dict(counts or {})
        self._total = sum(self._counts.values())

    def add(self, seconds: float) -> None:
        bucket = round(math.log(max(seconds, 0.001)) / _STEP)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self._total += 1

    def quantile(self, share: float) -> float | None:
        """The time within which ``share`` of the answers came, within an eighth; of few answers twice the longest.

        None without any answer.
        """
        if 0 < self._total < _ENOUGH:
            return 2 * math.exp(max(self._counts) * _STEP)
        return self.observed(share)

    def observed(self, share: float) -> float | None:
        """The time within which ``share`` of the answers came, within an eighth. None without any answer."""
        if not self._total:
            return None
        left = share * self._total
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                break
        return math.exp(bucket * _STEP)

    def answers_within(self, seconds: float, in_flight: int) -> float:
        """How many answers come within ``seconds`` while so many requests are in flight (Little's law)."""
        median = self.quantile(0.5)
        return in_flight * seconds / median if median else 0.0

    def carry(self) -> dict[int, int]:
        """The counts for the next slice, halved so that the last answers weigh most."""
        return {bucket: (count + 1) // 2 for bucket, count in self._counts.items()}


class Tail:
    """The end of a slice in which the last answer may come at ``last_answer_at``.

    A request takes at most ``request_seconds``. Sending began at ``began_at``.
    """

    def __init__(self, last_answer_at: float, request_seconds: float, began_at: float, latencies: Latencies) -> None:
        self.latencies = latencies
        self._last_answer_at = last_answer_at
        # If reading took too long, there is a part of the time that is left all the same.
        self._most = min(request_seconds, REQUEST_SHARE * max(0.0, last_answer_at - began_at))

    @property
    def last_start_at(self) -> float:
        """From this time on no request starts."""
        known = self.latencies.quantile(ANSWERED_SHARE)
        return self._last_answer_at - (self._most if known is None else min(known, self._most))
