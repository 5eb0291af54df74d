"""The life of a batch, drawn as text: its statuses, the visits of workers, and the tries of its webhook."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nightshift_cli import show

_WIDTH = 40
# What the other columns want of a terminal's width.
_BESIDE_THE_BAR = 75
_ENDS = ("completed", "failed", "expired", "cancelled")
# The status that a batch enters at each of these times.
_ENTERED = {"created_at": "validating"} | {
    f"{status}_at": status for status in ("in_progress", "finalizing", "cancelling", *_ENDS)
}
# What a chunk waits for, by the API's words.
_REASONS = {
    "route": "its route",
    "provider": "the provider's batch",
    "retries": "lines that are sent again",
    "spend_limit": "its account's spend limit",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A row: what began when and lasted until when, None for a moment; then what was waited until when."""

    name: str
    began_at: float
    ended_at: float | None = None
    waited_until: float | None = None
    words: str = ""
    rank: int = 1

    @property
    def place(self) -> tuple[int, int, float]:
        """Statuses and tries are told in whole seconds: within one, ends of the batch follow the visits."""
        return int(self.began_at), self.rank, self.began_at


def timeline(
    batch: Mapping[str, Any], visits: Sequence[Mapping[str, Any]], deliveries: Sequence[Mapping[str, Any]], now: float
) -> list[str]:
    """A line for each step, in the order of their beginnings, with its seconds, and a bar on one scale.

    Steps that go on last until ``now``. ``visits`` are newest first, as the API lists them. What is to come is below.
    """
    has_ended = batch["status"] in _ENDS
    shown = [*_statuses(batch, now), *_visits(visits, now, has_ended), *_tries(deliveries)]
    steps = sorted(shown, key=lambda step: step.place)
    begins = batch["created_at"]
    ends = max(moment for step in steps for moment in (step.began_at, step.ended_at or 0, step.waited_until or 0))
    width = max(_WIDTH // 4, min(_WIDTH, show.width() - _BESIDE_THE_BAR))
    rows: list[Sequence[object]] = [("STEP", "AT", "TOOK", "", "")]
    for step in steps:
        took = None if step.ended_at is None else _duration(step.ended_at - step.began_at)
        rows.append((step.name, _clock(step.began_at), took, _bar(step, begins, ends, width), step.words))
    waits = [one["next_attempt_at"] for one in deliveries if one.get("next_attempt_at")]
    rows += [("webhook, next try", _clock(at), None, "", "") for at in waits]
    if not has_ended and batch.get("expires_at"):
        rows.append(("expires", _clock(batch["expires_at"]), None, "", f"in {_duration(batch['expires_at'] - now)}"))
    return show.table(rows)


def _statuses(batch: Mapping[str, Any], now: float) -> Iterator[Step]:
    # In the order of a batch's life where two of them fall into one second.
    entered = [(batch[field], name) for field, name in _ENTERED.items() if batch.get(field) is not None]
    entered.sort(key=lambda step: step[0])
    for (at, name), (until, _) in zip(entered, [*entered[1:], (now, "")], strict=True):
        rank = {"finalizing": 2, **dict.fromkeys(_ENDS, 3)}.get(name, 0)
        yield Step(name, at, None if name in _ENDS else until, rank=rank)


def _visits(visits: Sequence[Mapping[str, Any]], now: float, has_ended: bool) -> Iterator[Step]:
    """The visits of each chunk. Those in a row that only waited for the same thing are one step."""
    for chunk in sorted({visit["chunk"] for visit in visits}):
        rows: list[list[Mapping[str, Any]]] = []
        for visit in reversed(visits):
            if visit["chunk"] != chunk:
                continue
            reason = _only_waited_for(visit)
            if reason and rows and reason == _only_waited_for(rows[-1][-1]):
                rows[-1].append(visit)
            else:
                rows.append([visit])
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            killed = row[-1]["outcome"] == "runs" and (has_ended or following is not None)
            yield _visit(row, following[0]["began_at"] if following else now, killed)


def _only_waited_for(visit: Mapping[str, Any]) -> str | None:
    """What a visit waits for that has sent nothing; None for any other."""
    idle = visit["outcome"] == "waits" and visit["attempt"] == 1 and not visit["requests_sent"]
    return visit["waits_for"] or "its turn" if idle else None


def _visit(row: Sequence[Mapping[str, Any]], next_at: float, killed: bool) -> Step:
    """A step for a visit, or for those of a row. A wait ends where the chunk's next visit begins.

    When a visit was ``killed`` is not known.
    """
    first, last = row[0], row[-1]
    attempt = f", attempt {last['attempt']}" if last["attempt"] > 1 else ""
    name = f"chunk {last['chunk']}{attempt}" + (f", {len(row)} visits" if len(row) > 1 else "")
    waited_until = None if last["waits_until"] is None else min(last["waits_until"], next_at)
    if last["outcome"] == "runs":
        words = "killed, tried again later" if killed else "runs"
        return Step(name, first["began_at"], None if killed else next_at, words=words)
    return Step(name, first["began_at"], first["ended_at"], waited_until, ", ".join(_words(last)))


def _words(visit: Mapping[str, Any]) -> Iterator[str]:
    for number, words in (
        (visit["requests_sent"], "sent"),
        (visit["requests_retried"], "sent again"),
        (visit["requests_refused"], "refused"),
    ):
        if number:
            yield f"{number} {words}"
    if visit["outcome"] == "waits":
        reason = _REASONS.get(visit["waits_for"], "its turn")
        yield f"waits for {reason} until {_clock(visit['waits_until'])}"
    elif visit["outcome"] == "failed":
        yield f"failed in every attempt, goes on at {_clock(visit['waits_until'])}"
    else:
        yield {"done": "done", "more": "goes on"}.get(visit["outcome"], visit["outcome"])


def _tries(deliveries: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    for delivery in deliveries:
        for number, attempt in enumerate(delivery["attempts"], 1):
            outcome = str(attempt["status_code"] or attempt["error"])
            yield Step(f"webhook, try {number}", attempt["attempted_at"], words=outcome, rank=4)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def _bar(step: Step, begins: float, ends: float, width: int) -> str:
    """A bar for what the step lasted, and a lighter one for the wait after it; a moment is one mark."""
    scale = width / max(1.0, ends - begins)

    def place(moment: float) -> int:
        return max(0, round((moment - begins) * scale))

    first, last = place(step.began_at), place(step.ended_at or step.began_at)
    mark = "●" if step.ended_at is None else "█" * (last - first) or "▏"
    waited = "░" * (place(step.waited_until) - last) if step.waited_until is not None else ""
    return " " * first + mark + waited
