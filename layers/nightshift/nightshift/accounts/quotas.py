"""The limits of an account, and the errors of a request that would exceed them."""

import msgspec

from nightshift.core.errors import LimitExceededError

# A guess, because the end of a batch or the deletion of a file cannot be predicted.
RETRY_AFTER_SECONDS = 60


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of an account; operators set others with ``nightshift admin accounts quotas``."""

    # A tenth of the Map Runs that Step Functions runs at once for an AWS account, so that others have places too.
    active_batches: int = 100
    queued_requests: int = 5_000_000
    stored_bytes: int = 100 * 1024**3
    # At the prices of the routes, by days and months in UTC; None for no limit.
    dollars_a_day: float | None = None
    dollars_a_month: float | None = None

    @property
    def limit_spending(self) -> bool:
        return self.dollars_a_day is not None or self.dollars_a_month is not None

    def check_active(self, active: int) -> None:
        """Check that one more batch is allowed beside ``active`` batches.

        Raises:
            LimitExceededError: ``quota_exceeded``.
        """
        if active >= self.active_batches:
            raise exceeded(
                f"The account has {active} active batches; the limit is {self.active_batches}. "
                "Wait for one to end, or cancel one."
            )

    def check_queued(self, queued: int, more: int) -> None:
        """Check that ``more`` requests are allowed beside ``queued`` requests without an answer.

        Raises:
            LimitExceededError: ``quota_exceeded``.
        """
        if queued + more > self.queued_requests:
            raise exceeded(
                f"The account has {queued} queued requests, and the batch has {more}; the limit is "
                f"{self.queued_requests}. Wait for a batch to end, or split the file."
            )

    def check_storage(self, stored: int, more: int) -> None:
        """Check that ``more`` bytes are allowed beside ``stored`` bytes.

        Raises:
            LimitExceededError: ``quota_exceeded``.
        """
        if stored + more > self.stored_bytes:
            raise exceeded(
                f"The account stores {stored} bytes and cannot store {more} more; the limit is {self.stored_bytes}. "
                "Delete files."
            )


def exceeded(message: str) -> LimitExceededError:
    """The error of a request over a quota, with when it may be tried again."""
    return LimitExceededError(message, retry_after=RETRY_AFTER_SECONDS)
