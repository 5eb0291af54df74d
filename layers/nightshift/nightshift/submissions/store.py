"""The newest submission of each chunk in the table ``Batches``, and which lines it has, in the bucket.

The item has pk the batch and sk ``submission#0007``. One worker at a time has a claim on it, which it renews while it
works. Every write needs the claim: of two workers on one chunk, only one can make a batch at the provider.
"""

from collections.abc import Sequence

import msgspec

from nightshift.core import bucket
from nightshift.core.table import Table
from nightshift.submissions.record import Submission

# Far longer than a claim needs to be renewed, and short enough to wait for after a crash.
CLAIM_SECONDS = 40.0
KEEP_SECONDS = 7 * 24 * 3600

_TABLE = Table("batches")


class ClaimLostError(Exception):
    """Another worker has the claim."""


class SubmissionStore:
    """The submissions of one chunk, for the worker ``worker``."""

    def __init__(self, batch_id: str, chunk: int, worker: str) -> None:
        self._batch_id = batch_id
        self._chunk = chunk
        self._worker = worker

    def claim(self, now: float) -> bool:
        """Take the claim; False while another worker has it."""
        written = _TABLE.update(
            *self._key,
            set={"claimed_by": self._worker, "claimed_until": now + CLAIM_SECONDS, "ttl": int(now) + KEEP_SECONDS},
            condition="attribute_not_exists(#claimed_until) OR #claimed_until < :now OR #claimed_by = :worker",
            now=now,
            worker=self._worker,
        )
        return written is not None

    def renew(self, now: float) -> None:
        """Keep the claim for ``CLAIM_SECONDS`` from now.

        Raises:
            ClaimLostError: another worker has it.
        """
        self._update({"claimed_until": now + CLAIM_SECONDS})

    def release(self) -> None:
        """Give the claim back, if it is still held."""
        _TABLE.update(*self._key, set={"claimed_until": 0}, condition="#claimed_by = :worker", worker=self._worker)

    def load(self) -> Submission | None:
        """The chunk's newest submission; None before the first."""
        return load(self._batch_id, self._chunk)

    def save(self, submission: Submission) -> None:
        """Write the submission.

        Raises:
            ClaimLostError: another worker has the claim.
        """
        self._update({"submission": msgspec.json.encode(submission).decode()})

    def put_lines(self, number: int, lines: Sequence[int]) -> None:
        """Record which lines the submission ``number`` has, in the order of its file."""
        bucket.put(self._lines_key(number), msgspec.json.encode(lines))

    def lines(self, number: int) -> list[int]:
        """The lines of the submission ``number``, in the order of its file."""
        content = bucket.read(self._lines_key(number))
        return [] if content is None else msgspec.json.decode(content, type=list[int])

    def _update(self, changes: dict[str, str | float]) -> None:
        if _TABLE.update(*self._key, set=changes, condition="#claimed_by = :worker", worker=self._worker) is None:
            raise ClaimLostError

    @property
    def _key(self) -> tuple[str, str]:
        return self._batch_id, f"submission#{self._chunk:04d}"

    def _lines_key(self, number: int) -> str:
        return f"work/{self._batch_id}/submissions/{self._chunk:04d}-{number:03d}.json"


def load(batch_id: str, chunk: int) -> Submission | None:
    """The newest submission of a chunk; None before the first."""
    item = _TABLE.get(batch_id, f"submission#{chunk:04d}", consistent=True)
    return msgspec.json.decode(item["submission"], type=Submission) if item and "submission" in item else None


def of_batch(batch_id: str) -> list[tuple[int, Submission]]:
    """The newest submission of each chunk of a batch, by chunk."""
    items = _TABLE.query("#pk = :pk AND begins_with(#sk, :prefix)", pk=batch_id, prefix="submission#")
    return [
        (int(item["sk"].partition("#")[2]), msgspec.json.decode(item["submission"], type=Submission))
        for item in items
        if "submission" in item
    ]
