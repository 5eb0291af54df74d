"""The life of a batch, drawn as text: each of its statuses and each try of its webhook, with its time."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nightshift_cli import show

_WIDTH = 40
_ENDS = ("completed", "failed", "expired", "cancelled")
# The status that a batch enters at each of these times.
_ENTERED = {"created_at": "validating"} | {
    f"{status}_at": status for status in ("in_progress", "finalizing", "cancelling", *_ENDS)
}


def timeline(batch: Mapping[str, Any], deliveries: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """A line for each step, with its beginning, its seconds, and a bar on one scale; steps that go on last until
    ``now``."""
    # In the order of a batch's life where two of them fall into one second.
    entered = [(batch[field], name) for field, name in _ENTERED.items() if batch.get(field) is not None]
    entered.sort(key=lambda step: step[0])
    tries = [
        (attempt["attempted_at"], f"webhook, try {number}", str(attempt["status_code"] or attempt["error"]))
        for delivery in deliveries
        for number, attempt in enumerate(delivery["attempts"], 1)
    ]
    begins = batch["created_at"]
    has_ended = batch["status"] in _ENDS
    ends = max([entered[-1][0] if has_ended else now, *(at for at, _, _ in tries)])
    rows: list[Sequence[object]] = [("STEP", "AT", "TOOK", "")]
    for (at, name), (until, _) in zip(entered, [*entered[1:], (now, "")], strict=True):
        if name in _ENDS:
            rows.append((name, _clock(at), None, _bar(at, at, begins, ends)))
        else:
            rows.append((name, _clock(at), _duration(until - at), _bar(at, until, begins, ends)))
    rows += [(name, _clock(at), words, _bar(at, at, begins, ends)) for at, name, words in tries]
    waits = [one["next_attempt_at"] for one in deliveries if one.get("next_attempt_at")]
    rows += [("webhook, next try", _clock(at), None, "") for at in waits]
    if not has_ended and batch.get("expires_at"):
        rows.append(("expires", _clock(batch["expires_at"]), f"in {_duration(batch['expires_at'] - now)}", ""))
    return show.table(rows)


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def _bar(at: float, until: float, begins: float, ends: float) -> str:
    """A bar for the part of ``begins`` to ``ends``; a moment is one mark."""
    scale = _WIDTH / max(1.0, ends - begins)
    first, last = round((at - begins) * scale), round((until - begins) * scale)
    return " " * first + ("█" * (last - first) if last > first else "▏" if until > at else "●")
