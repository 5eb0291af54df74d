"""What one account may hold at once, and the refusal when it would be more."""

from typing import Any

import msgspec

from nightshift.core.errors import LimitExceededError

# When it may be worth trying again: batches end, and files are deleted, at no time that we could know.
RETRY_AFTER_SECONDS = 60


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of an account; operators set others with ``nightshift admin accounts quotas``."""

    active_batches: int = 1_000
    queued_requests: int = 5_000_000
    stored_bytes: int = 100 * 1024**3

    @classmethod
    def of(cls, account: dict[str, Any]) -> "Quotas":
        """The quotas of an account's item; what it does not say has the default."""
        return msgspec.convert(account.get("quotas") or {}, cls)

    def check_batches(self, active: int, queued: int) -> None:
        """Refuse a batch more when ``active`` batches with ``queued`` requests in all have not ended.

        Raises:
            LimitExceededError: ``quota_exceeded``.
        """
        if active >= self.active_batches:
            self._refuse(f"{active} batches have not ended, and {self.active_batches} may at once")
        if queued >= self.queued_requests:
            self._refuse(f"{queued} requests are queued, and {self.queued_requests} may be at once")

    def check_storage(self, stored: int, more: int) -> None:
        """Refuse ``more`` bytes when ``stored`` are there.

        Raises:
            LimitExceededError: ``quota_exceeded``.
        """
        if stored + more > self.stored_bytes:
            self._refuse(f"the account stores {stored} bytes, and may store {self.stored_bytes}: delete files")

    def _refuse(self, why: str) -> None:
        raise LimitExceededError(f"The account is at its limit: {why}.", retry_after=RETRY_AFTER_SECONDS)
