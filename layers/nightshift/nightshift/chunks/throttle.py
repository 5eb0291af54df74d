"""When a run may start its next request, and how many it may have in flight.

The bounds are what the upstream takes (``pacing``), the run's part of its route (``tenure``), its part of the route's
requests and tokens a minute (``rate``), and the end of the slice (``tail``). Times are seconds on one clock.
"""

import random

from msgspec.structs import replace

from nightshift.batches.progress import AnswerSeconds
from nightshift.chunks.chunk import Carry
from nightshift.chunks.meter import Meter
from nightshift.chunks.tail import Latencies, Tail
from nightshift.chunks.tenure import Tenure
from nightshift.routes.lease import NEWCOMER_SECONDS
from nightshift.upstream.answer import Answer
from nightshift.upstream.pacing import MAX_RETRY_AFTER, Backoff, Pacer
from nightshift.upstream.rate import RateBudget, needed_tokens, used_tokens


class Throttle:
    """The bounds of one run. ``concurrency`` is its ceiling where it has no ``tenure``; a ``meter`` bounds its cost.

    Example:
        if throttle.may_start(now, in_flight):
            throttle.started(body, now)
            throttle.answered(body, answer, started_at, now)  # or throttle.refused(answer, started_at, now)
    """

    def __init__(
        self,
        concurrency: int,
        carry: Carry,
        tenure: Tenure | None,
        backoff: Backoff,
        rng: random.Random,
        meter: Meter | None = None,
    ) -> None:
        self._tenure = tenure
        self._meter = meter
        self._latencies = Latencies(carry.latencies)
        self._pacer = Pacer(tenure.permit.ceiling if tenure else concurrency, carry.level, backoff=backoff, rng=rng)
        self._rates = RateBudget()
        self._tail: Tail | None = None
        self._follow_permit(0.0)

    def begin(self, last_answer_at: float, request_seconds: float, now: float) -> None:
        """Sending begins; the slice's last answer may come at ``last_answer_at``."""
        self._tail = Tail(last_answer_at, request_seconds, now, self._latencies)
        self._follow_permit(now)

    # --- what may start ----------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight."""
        if self._meter and not self._meter.allows():
            return 0
        return min(self._pacer.limit, self._tenure.ceiling) if self._tenure else self._pacer.limit

    @property
    def ran_dry(self) -> bool:
        """Whether nothing may be sent because the account's portion is spent, and a renewal may bring another."""
        return self._meter is not None and not self._meter.spent_up and not self._meter.allows()

    @property
    def spent_pause(self) -> int:
        """Seconds to wait because the account may spend no more; 0 while it may."""
        return self._meter.pause if self._meter and self._meter.spent_up else 0

    @property
    def last_start_at(self) -> float:
        """From this time on no request starts in this slice."""
        return self._tail.last_start_at if self._tail else float("-inf")

    @property
    def refusals(self) -> int:
        """How often in a row, without an answer between, refusals have lowered the limit."""
        return self._pacer.refusals

    def resume_at(self, now: float) -> float:
        """The time from which a request may start, as far as the upstream and the rates are concerned."""
        return max(self._pacer.resume_at, self._rates.ready_at(now))

    def may_start(self, now: float, in_flight: int) -> bool:
        return in_flight < self.limit and self.resume_at(now) <= now < self.last_start_at

    # --- what happened -----------------------------------------------------------------------------------------

    def started(self, body: bytes, now: float) -> None:
        self._rates.take(self._needed(body), now)

    def answered(self, body: bytes, answer: Answer, started_at: float, now: float) -> None:
        """Count an answer that is no refusal, or a failure."""
        if answer.failure is not None:
            return
        self._pacer.answered(started_at)
        self._latencies.add(now - started_at)
        if self._rates.counts_tokens:
            self._rates.correct(self._needed(body), used_tokens(answer.body), now)
        if answer.reset_after is not None:
            self._pacer.pause(started_at + min(answer.reset_after, MAX_RETRY_AFTER))
        if self._tenure and answer.status < 300:
            self._tenure.answered_at = now

    def refused(self, answer: Answer, started_at: float, now: float) -> float:
        """Count a refusal. Returns when to send the request again."""
        return self._pacer.refused(started_at, now, answer.retry_after)

    def delay(self, failures: int) -> float:
        """Seconds of backoff after ``failures`` in a row."""
        return self._pacer.delay(failures)

    async def renew(self, lines: int, wanted: int, in_use: int, now: float) -> None:
        """Renew the meter's portion and the tenure, if there are any, and tell the route's workers what was learned.

        ``lines`` are unfinished, ``wanted`` of them could be in flight, and ``in_use`` are.
        """
        if self._meter:
            await self._meter.renew()
        if self._tenure:
            answers = self._latencies.answers_within(NEWCOMER_SECONDS, in_use)
            wanted_soon = min(wanted, max(0, round(lines - answers)))
            await self._tenure.renew(wanted, in_use, self._pacer.level, wanted_soon)
            self._follow_permit(now)

    def answer_seconds(self) -> AnswerSeconds | None:
        """How long recent answers took; None without any."""
        p50, p90 = self._latencies.observed(0.5), self._latencies.observed(0.9)
        return AnswerSeconds(round(p50, 3), round(p90, 3)) if p50 and p90 else None

    def carry(self, now: float) -> Carry:
        """What the next slice starts from, but for the lines."""
        level = replace(self._pacer.level, resume_at=self.resume_at(now))
        return Carry(level=level, latencies=self._latencies.carry())

    def _follow_permit(self, now: float) -> None:
        if self._tenure is None:
            return
        permit = self._tenure.permit
        self._pacer.ceiling = max(1, permit.ceiling)
        if permit.level is not None:
            self._pacer.adopt(permit.level)
        self._rates.set_rates(permit.requests_per_minute, permit.tokens_per_minute, now)

    def _needed(self, body: bytes) -> int:
        return needed_tokens(body) if self._rates.counts_tokens else 0
