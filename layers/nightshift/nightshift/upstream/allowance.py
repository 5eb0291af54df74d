"""What an upstream's ``x-ratelimit-*`` headers say of its allowance of requests and tokens, in OpenAI's form."""

import re
from collections.abc import Mapping

# A wait that no provider means, such as a time since 1970 in place of a duration.
_TOO_LONG = 7 * 24 * 3600.0
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
# A longer value is none of these, and would take long to match.
_MAX_LENGTH = 64


def duration(text: str) -> float | None:
    """The seconds of a duration such as ``1s``, ``6m0s``, ``12ms`` or ``59.7``; None for anything else."""
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        return None
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        return None
    return seconds if seconds < _TOO_LONG else None


def reset_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds until the upstream takes requests again, where no requests or no tokens remain; None while some do."""
    waits = [_reset_of(kind, headers) for kind in ("requests", "tokens")]
    return max((wait for wait in waits if wait is not None), default=None)


def _reset_of(kind: str, headers: Mapping[str, str]) -> float | None:
    remaining = headers.get(f"x-ratelimit-remaining-{kind}", "").strip()
    if not _NUMBER.fullmatch(remaining[:_MAX_LENGTH]) or float(remaining) > 0:
        return None
    return duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
