"""What one HTTP request to a receiver comes to."""

from msgspec import Struct


class Outcome(Struct, frozen=True):
    """The ``status`` of the response or, without a response, a short ``error`` that names no address.

    ``retry_after`` is the wait from the receiver's ``Retry-After``, in seconds.
    """

    status: int | None = None
    error: str | None = None
    retry_after: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver has answered that it is gone for good."""
        return self.status == 410
