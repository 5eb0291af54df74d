"""The health of a route, from what its workers see: ``healthy``, ``suspect``, ``broken`` or ``probing``.

A worker whose requests all meet a trouble of the route makes it suspect: that worker stops, the others go on. If
another worker or the probe sees it too, the route is broken, and all stop. One prober at a time then sends a single
request, with growing pauses; an answer makes the route healthy. Times are seconds since 1970.
"""

import re
from typing import Literal

import msgspec

Kind = Literal["key", "quota", "address", "down"]
State = Literal["healthy", "suspect", "broken", "probing"]
# The operator's word: send nothing, or take no new batches.
Control = Literal["open", "draining", "paused"]

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
MAX_WORDS = 500
# What looks like a key: providers repeat it, or a part of it, in their messages.
_SECRET = re.compile(r"(?i)\b(bearer|basic)\s+\S+|\b(sk|pk|key|token)[-_][\w*.-]{4,}|[\w*+/=-]{24,}")


class Trouble(msgspec.Struct, frozen=True):
    """Why a route cannot answer: its kind, the upstream's status (0 without one) and its own words."""

    kind: Kind
    status: int
    words: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers of a route know of it; without ``trouble`` it is healthy.

    ``since`` is when the trouble began, or ended; ``seen_at`` when it was last seen. ``reporter`` saw it first, and it
    is ``confirmed`` when a second worker or the probe has seen it. ``failures`` counts failed probes. The worker
    ``prober`` may send one request until ``probe_until``. ``revision`` counts the writes.
    """

    trouble: Trouble | None = None
    since: float = 0.0
    seen_at: float = 0.0
    reporter: str = ""
    confirmed: bool = False
    failures: int = 0
    probe_at: float = 0.0
    prober: str | None = None
    probe_until: float = 0.0
    revision: int = 0

    @property
    def state(self) -> State:
        if self.trouble is None:
            return "healthy"
        if self.prober is not None:
            return "probing"
        return "broken" if self.confirmed else "suspect"


def trouble_of(status: int, words: str) -> Trouble:
    """The trouble that an upstream's status and words tell; status 0 means that there was no answer."""
    text = words.lower()
    kind: Kind
    if status == 402 or "insufficient_quota" in text:
        kind = "quota"
    elif status in (401, 403) or (status == 0 and ("secret" in text or "api key" in text)):
        kind = "key"
    elif status == 404 or (status == 0 and re.search(r"certificate|ssl|dns|name or service|resolve", text)):
        kind = "address"
    else:
        kind = "down"
    return Trouble(kind, status, plain(words))


def plain(words: str) -> str:
    """The words in one line of at most ``MAX_WORDS`` printable characters, without what looks like a key."""
    one_line = "".join(char if char.isprintable() else " " for char in words[: 8 * MAX_WORDS])
    return _SECRET.sub("…", " ".join(one_line.split()))[:MAX_WORDS]


def reported(health: Health, trouble: Trouble, worker: str, now: float) -> Health:
    """The health after ``worker`` met ``trouble`` with all its requests."""
    if health.trouble is None:
        return _next(
            health, trouble=trouble, since=now, seen_at=now, reporter=worker, failures=0, probe_at=now + FIRST_PAUSE
        )
    if health.prober == worker:
        failures = health.failures + 1
        probe_at = now + pause_after(failures)
        health = msgspec.structs.replace(health, failures=failures, probe_at=probe_at, prober=None, probe_until=0.0)
    confirmed = health.confirmed or health.failures > 0 or health.reporter != worker
    return _next(health, trouble=trouble, seen_at=now, confirmed=confirmed)


def pause_after(failures: int) -> float:
    """Seconds until the next probe after so many failed ones."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))


def may_probe(health: Health, now: float) -> bool:
    """Whether a probe is due: the pause is over, or the last prober has not come back."""
    if health.prober is not None:
        return now >= health.probe_until
    return health.trouble is not None and now >= health.probe_at


def claimed(health: Health, worker: str, now: float, seconds: float) -> Health:
    """``worker`` sends the probe, and has ``seconds`` for it."""
    return _next(health, prober=worker, probe_until=now + seconds)


def answered(health: Health, now: float) -> Health:
    """The upstream answers: the route is healthy."""
    return Health(since=now, revision=health.revision + 1)


def may_send(health: Health, worker: str, is_running: bool) -> bool:
    """Whether ``worker`` may send more than a probe: workers that run go on until the trouble is confirmed."""
    if health.trouble is None:
        return True
    return is_running and not health.confirmed and health.reporter != worker


def _next(health: Health, **changes: object) -> Health:
    return msgspec.structs.replace(health, revision=health.revision + 1, **changes)
