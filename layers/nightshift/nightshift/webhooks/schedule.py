"""When a webhook is tried again."""

from collections.abc import Sequence

from nightshift.webhooks.outcome import Outcome

# SQS hides a message for at most 12 hours, counted from when it was received. The rest is for the try itself.
MAX_DELAY_SECONDS = 12 * 3600 - 30


def next_delay(outcome: Outcome, tries: int, delays: Sequence[int], chance: float) -> int | None:
    """Seconds from try number ``tries``, which had this ``outcome``, to the next; None where no try follows.

    ``delays`` are the gaps between tries. A gap grows by up to a tenth (``chance`` is uniform in [0, 1)), so that a
    receiver that comes back does not get every delayed webhook at once. A longer ``Retry-After`` is honoured.
    """
    if outcome.accepted or outcome.gone or tries > len(delays):
        return None
    return min(MAX_DELAY_SECONDS, round(max(delays[tries - 1] * (1 + chance / 10), outcome.retry_after or 0)))
