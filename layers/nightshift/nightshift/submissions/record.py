"""A submission: some lines of a chunk as one batch of the provider, and how far it has come."""

from typing import Literal

import msgspec

# uploading: the lines are chosen, and the provider may have their file. creating: it has the file, and may have the
# batch. running: it has the batch. collecting: the batch has ended. deleting: the answers are stored, the provider's
# files are not deleted yet. ended: nothing is left to do for these lines. realtime: the chunk goes on in real time.
Step = Literal["uploading", "creating", "running", "collecting", "deleting", "ended", "realtime"]


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """The newest submission of a chunk. Times are seconds since 1970.

    ``round`` counts how often its lines are sent, this time included. ``end_line`` is the number of the line after its
    last: the lines from there on are not sent in this round yet. With ``create_sent`` the provider may have received
    the call that creates the batch. ``failed_calls`` counts the calls in a row that failed, ``refusals`` the batches in
    a row that were refused as a whole. ``not_before`` is the time before which nothing is to be done.
    """

    number: int
    step: Step
    since: float
    round: int = 1
    end_line: int = 0
    lines: int = 0
    create_sent: bool = False
    file_id: str | None = None
    batch_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stopped_at: float | None = None
    failed_calls: int = 0
    not_before: float = 0.0
    refusals: int = 0
    # Lines of the whole chunk whose results are stored, and those of this submission that the provider has answered.
    completed: int = 0
    failed: int = 0
    answered: int = 0
    problem: str | None = None
    # The provider's batches of this chunk so far, for operators.
    batch_ids: list[str] = []

    @property
    def stopping(self) -> bool:
        """Whether the provider was asked to cancel."""
        return self.stopped_at is not None


def name_of(batch_id: str, chunk: int, number: int) -> str:
    """What a submission is called at the provider: the name of its file and the value in its batch's metadata."""
    return f"{batch_id}-{chunk:04d}-{number:03d}"
