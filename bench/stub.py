"""A stub upstream as cheap as Python allows: a bare asyncio protocol in a process of its own.

It answers every POST with the same chat completion after a latency, constant or log-normal, so that what is measured is
the client. `python -m bench.stub PORT LATENCY_MS [P99_MS]` serves until it is killed.
"""

import asyncio
import math
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

TEXT = "Night falls, the queue is long, and every line will have its answer. " * 10
BODY = (
    '{"id":"chatcmpl-stub","object":"chat.completion","created":1,"model":"stub","choices":[{"index":0,"message":'
    f'{{"role":"assistant","content":"{TEXT}"}},"finish_reason":"stop"}}],'
    '"usage":{"prompt_tokens":20,"completion_tokens":150,"total_tokens":170}}'
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
# The 99th percentile of a normal distribution, in standard deviations.
_Z99 = 2.326


class Latency:
    """Seconds that an answer takes: ``median``, or log-normal where a ``p99`` is given."""

    def __init__(self, median: float, p99: float | None = None, seed: int | None = None) -> None:
        self._median = median
        self._sigma = math.log(p99 / median) / _Z99 if p99 else 0.0
        self._random = random.Random(seed)

    def draw(self) -> float:
        return self._median * math.exp(self._random.gauss(0, self._sigma)) if self._sigma else self._median


class _Stub(asyncio.Protocol):
    latency: Latency

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:":
                length = int(line[15:])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._loop.call_later(self.latency.draw(), self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(RESPONSE)


async def _serve(port: int, latency: Latency) -> None:
    _Stub.latency = latency
    server = await asyncio.get_running_loop().create_server(_Stub, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


@contextmanager
def upstream(latency_ms: float, p99_ms: float | None = None) -> Iterator[str]:
    """A stub in a process of its own, for as long as the block lasts; gives its base URL."""
    from local.stack import free_port

    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.stub", str(port), str(latency_ms), str(p99_ms or "")])
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=30).read()
                break
            except OSError:
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Latency(float(sys.argv[2]) / 1000, float(sys.argv[3] or 0) / 1000 or None)))
