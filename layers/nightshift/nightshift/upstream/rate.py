"""Requests and tokens a minute: when the next request may start. Times are seconds on one clock."""

import msgspec

# What is not used is kept for so long, so that a late start is made up for. Providers count over a second to a minute.
SAVED_SECONDS = 1.0
BYTES_PER_TOKEN = 4


class _Bounds(msgspec.Struct):
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


class _Counts(msgspec.Struct):
    total_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: _Counts | None = None


def needed_tokens(body: bytes) -> int:
    """An estimate of the tokens of a request: a quarter of its bytes, and the most that its answer may have."""
    try:
        bounds = msgspec.json.decode(body, type=_Bounds)
    except msgspec.DecodeError:
        bounds = _Bounds()  # The upstream judges its fields.
    most = bounds.max_completion_tokens or bounds.max_output_tokens or bounds.max_tokens or 0
    return len(body) // BYTES_PER_TOKEN + max(0, most)


def used_tokens(body: bytes) -> int | None:
    """The tokens that an answer reports as used; None if it reports none."""
    try:
        usage = msgspec.json.decode(body, type=_Counted).usage
    except msgspec.DecodeError:
        return None
    return usage.total_tokens if usage and usage.total_tokens > 0 else None


class _Bucket:
    """``per_minute`` units a minute. A request may start while the balance is not negative, however much it takes."""

    def __init__(self, per_minute: float) -> None:
        self.per_second = per_minute / 60
        self._balance = 0.0
        self._counted_at = float("-inf")

    def ready_at(self, now: float) -> float:
        self._count(now)
        return now if self._balance >= 0 else now - self._balance / self.per_second

    def take(self, amount: float, now: float) -> None:
        self._count(now)
        self._balance -= amount

    def set_rate(self, per_minute: float, now: float) -> None:
        self._count(now)
        self.per_second = per_minute / 60

    def _count(self, now: float) -> None:
        most = self.per_second * SAVED_SECONDS
        if now > self._counted_at:
            self._balance = min(most, self._balance + (now - self._counted_at) * self.per_second)
            self._counted_at = now


class RateBudget:
    """A worker's part of the requests and tokens a minute of its route; None for no limit.

    Example:
        if now >= rates.ready_at(now):
            rates.take(needed_tokens(body), now)
            ...
            rates.correct(needed_tokens(body), used_tokens(answer.body), now)
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests = _Bucket(requests_per_minute) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute) if tokens_per_minute else None

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited, so that they have to be estimated."""
        return self._tokens is not None

    def ready_at(self, now: float) -> float:
        """When the next request may start; ``now`` or earlier if it may start now."""
        return max((bucket.ready_at(now) for bucket in (self._requests, self._tokens) if bucket), default=now)

    def take(self, tokens: int, now: float) -> None:
        """Count a request that starts and needs so many tokens."""
        if self._requests:
            self._requests.take(1, now)
        if self._tokens:
            self._tokens.take(tokens, now)

    def correct(self, estimated: int, used: int | None, now: float) -> None:
        """Replace the estimate of a request by what its answer reports."""
        if self._tokens and used is not None:
            self._tokens.take(used - estimated, now)

    def set_rates(self, requests_per_minute: float | None, tokens_per_minute: float | None, now: float) -> None:
        """Change the rates, such as when the worker's part of them changes. What was taken stays counted."""
        self._requests = _changed(self._requests, requests_per_minute, now)
        self._tokens = _changed(self._tokens, tokens_per_minute, now)


def _changed(bucket: _Bucket | None, per_minute: float | None, now: float) -> _Bucket | None:
    if not per_minute:
        return None
    if bucket is None:
        return _Bucket(per_minute)
    bucket.set_rate(per_minute, now)
    return bucket
