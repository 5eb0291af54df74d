"""A route as operators write it in YAML: the flat fields of ``Route``, or the nested form, or both.

The nested form has ``realtime:`` and ``batch:`` with what holds for each way to the upstream, durations such as ``2h``
and sizes such as ``200MB``. ``batch: false`` keeps a route out of batches.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from nightshift.routes.route import JsonFields, Route

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# What stands under `realtime:` and is a field of the route itself, because both modes need it.
_OF_ROUTE = {"max_concurrency", "requests_per_minute", "tokens_per_minute", "timeout_seconds"}


def parse(entry: Any) -> Route:
    """The route that one entry of a file describes.

    Raises:
        msgspec.ValidationError: it is not a valid route; the message names the first wrong field.
    """
    if not isinstance(entry, Mapping):
        return msgspec.convert(entry, Route, strict=True)
    flat = dict(entry)
    try:
        _flatten_batch(flat)
        _flatten_realtime(flat)
        if "rescue_before" in flat:
            flat["rescue_before_seconds"] = seconds(flat.pop("rescue_before"))
    except ValueError as error:
        raise msgspec.ValidationError(str(error)) from None
    return msgspec.convert(flat, Route, strict=True)


def _flatten_batch(flat: JsonFields) -> None:
    api = flat.get("batch")
    if not isinstance(api, Mapping):
        return
    del flat["batch"]
    if "batch_api" in flat:
        raise ValueError("batch and batch_api exclude each other")
    api = dict(api)
    if "max_bytes" in api:
        api["max_bytes"] = size(api["max_bytes"])
    flat["batch_api"] = api


def _flatten_realtime(flat: JsonFields) -> None:
    realtime = flat.get("realtime")
    if not isinstance(realtime, Mapping):
        return
    own = {name: value for name, value in realtime.items() if name not in _OF_ROUTE}
    for name in _OF_ROUTE & realtime.keys():
        if name in flat:
            raise ValueError(f"{name} stands twice, in realtime too")
        flat[name] = realtime[name]
    flat["realtime"] = own


def seconds(duration: object) -> int:
    """The seconds of ``90s``, ``30m``, ``2h`` or of a number of seconds.

    Raises:
        ValueError: it is no duration.
    """
    found = re.fullmatch(r"(\d{1,9})\s*([smh]?)", str(duration))
    if not found or isinstance(duration, bool):
        raise ValueError(f"{duration!a} is not a duration such as 2h, 30m or 90s")
    return int(found[1]) * _SECONDS[found[2] or "s"]


def size(text: object) -> int:
    """The bytes of ``200MB``, ``64MiB`` or of a number of bytes.

    Raises:
        ValueError: it is no size.
    """
    found = re.fullmatch(r"(\d{1,15})\s*([kmg]i?b|)", str(text), re.IGNORECASE)
    if not found or isinstance(text, bool):
        raise ValueError(f"{text!a} is not a size such as 200MB")
    return int(found[1]) * _BYTES[found[2].lower()]
