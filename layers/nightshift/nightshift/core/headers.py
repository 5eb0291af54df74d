"""Response headers that both upstreams and webhook receivers send."""

import email.utils
from collections.abc import Mapping


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds to wait, from ``retry-after-ms`` or ``Retry-After``; None without a readable one.

    ``now`` (seconds since 1970) is what a date in ``Retry-After`` counts from.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
            except (ValueError, OverflowError):
                continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None
