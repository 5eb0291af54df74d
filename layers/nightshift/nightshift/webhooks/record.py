"""An account's receiver, and the delivery of one webhook with its attempts."""

from typing import Literal

import msgspec
from msgspec.structs import replace

# A webhook can be redelivered without end; its list of attempts keeps the last ones.
MAX_ATTEMPTS_KEPT = 100

State = Literal["pending", "succeeded", "failed"]


class Receiver(msgspec.Struct, frozen=True):
    """The URL that gets an account's webhooks, and the secrets that sign them, the newest first."""

    url: str | None = None
    signing_secrets: tuple[str, ...] = ()


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try: the status code of the response or, without a response, a short ``error`` that names no address."""

    attempted_at: int
    status_code: int | None
    error: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True, rename={"batch_id": "pk"}):
    """The delivery of one batch's webhook. Times are seconds since 1970.

    ``tries`` counts the attempts of the current round: a redelivery starts a new one. ``next_attempt_at`` is None when
    no attempt follows. (``rename`` gives the attribute of the stored item where it is not the field's name.)
    """

    batch_id: str
    id: str
    event_id: str
    event_type: str
    url: str
    state: State
    created_at: int
    tries: int = 0
    attempts: tuple[Attempt, ...] = ()
    next_attempt_at: int | None = None

    def after(self, attempt: Attempt, *, url: str, state: State, next_attempt_at: int | None = None) -> "Delivery":
        """The delivery after one more attempt, which went to ``url``."""
        return replace(
            self,
            url=url,
            state=state,
            tries=self.tries + 1,
            attempts=(*self.attempts, attempt)[-MAX_ATTEMPTS_KEPT:],
            next_attempt_at=next_attempt_at,
        )

    def restarted(self, now: int) -> "Delivery":
        """The delivery at the start of a new round of tries."""
        return replace(self, state="pending", tries=0, next_attempt_at=now)
