"""The upstream simulator of the stack, as tests set it."""

import json
import urllib.request
from typing import Any


class Upstream:
    """The simulator's control."""

    def __init__(self, url: str) -> None:
        self._url = url

    def set(self, **settings: Any) -> None:
        self._call("PUT", settings)

    def counters(self) -> dict[str, Any]:
        return self._call("GET")

    def reset(self) -> None:
        self._call("DELETE")

    def _call(self, method: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer
