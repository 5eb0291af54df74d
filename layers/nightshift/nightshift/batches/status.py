"""The statuses of a batch and the only edges between them.

validating ─> in_progress ─> finalizing ─> completed
     │             ├────────────────────────> expired
     └─> failed    │             │
     └─────────────┴─────────────┴─> cancelling ─> cancelled
"""

from typing import Literal

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]

EDGES: dict[Status, frozenset[Status]] = {
    "validating": frozenset({"in_progress", "failed", "cancelling"}),
    "in_progress": frozenset({"finalizing", "expired", "cancelling"}),
    "finalizing": frozenset({"completed", "cancelling"}),
    "cancelling": frozenset({"cancelled"}),
    "failed": frozenset(),
    "completed": frozenset(),
    "expired": frozenset(),
    "cancelled": frozenset(),
}
STATUSES: tuple[Status, ...] = tuple(EDGES)
TERMINAL: frozenset[Status] = frozenset(status for status, successors in EDGES.items() if not successors)


def sources(target: Status) -> frozenset[Status]:
    """The statuses from which ``target`` may be entered."""
    return frozenset(status for status, successors in EDGES.items() if target in successors)


def timestamp_field(status: Status) -> str | None:
    """The batch's field that records when ``status`` was entered. ``validating`` is ``created_at``, set at creation."""
    return None if status == "validating" else f"{status}_at"
