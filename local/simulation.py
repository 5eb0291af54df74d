"""What the upstream simulator's parts share: its settings, its counters, and its errors."""

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Settings:
    """``local/upstream.py`` describes each of them."""

    held: bool = False
    latency_ms: float = 0
    jitter_ms: float = 0
    error_rate: dict[str, float] = field(default_factory=dict)
    retry_after_s: float | None = None
    hang_rate: float = 0
    reset_rate: float = 0
    answer_bytes: int = 0
    down: bool = False

    batch_start_seconds: float = 0
    batch_seconds: float = 0
    batch_cancel_seconds: float = 0
    batch_stuck: bool = False
    batch_fail: dict[str, Any] = field(default_factory=dict)
    batch_bad_lines: list[str] | float = 0
    batch_expire_after: float | None = None
    batch_error_rate: float = 0
    batch_missing_rate: float = 0
    batch_double_rate: float = 0
    batch_unknown_rate: float = 0
    files_late_seconds: float = 0
    cancel_conflict: bool = False
    batch_api_error_rate: dict[str, float] = field(default_factory=dict)
    batch_api_reset_rate: float = 0
    batch_api_error_after: bool = False
    max_batch_requests: int = 50_000
    max_batch_bytes: int = 200 * 1024 * 1024
    max_queued_tokens: int | None = None

    def change(self, wanted: dict[str, Any]) -> None:
        """Change the settings in ``wanted``.

        Raises:
            ValueError: a setting is unknown.
        """
        known = {each.name for each in fields(self)}
        if unknown := wanted.keys() - known:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        for name, value in wanted.items():
            setattr(self, name, value)


@dataclass
class Counters:
    received: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    hung: int = 0
    reset: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    files_uploaded: int = 0
    files_deleted: int = 0
    batches_created: int = 0
    cancels: int = 0
    batch_api: Counter[str] = field(default_factory=Counter)
    submitted: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        return {
            **vars(self),
            "received_twice_or_more": sum(count > 1 for count in self.requests.values()),
            "submitted_twice_or_more": sum(count > 1 for count in self.submitted.values()),
        }


@dataclass
class Simulation:
    settings: Settings = field(default_factory=Settings)
    counters: Counters = field(default_factory=Counters)

    def reset(self) -> None:
        self.settings, self.counters = Settings(), Counters()


def drawn_status(rates: dict[str, float]) -> int | None:
    """An error status, each with its share, such as ``{"429": 0.05}``; None for the rest."""
    draw = random.random()
    for status, share in rates.items():
        draw -= share
        if draw < 0:
            return int(status)
    return None


def digest(wanted: Any) -> str:
    """What equal requests have in common, however their JSON is written."""
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:24]


def simulated_error(status: int) -> dict[str, Any]:
    """The body of an answer with an error status."""
    error = {"message": f"simulated {status}", "type": "simulated_error", "param": None, "code": None}
    return {"error": error}
