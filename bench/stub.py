"""A stub upstream that costs little CPU: a bare asyncio protocol in its own process.

It answers every POST with the same chat completion after a constant or log-normal latency, so that the client is
measured. It answers a GET at once with the totals so far. `python -m bench.stub --help` lists its options.
"""

import argparse
import asyncio
import json
import math
import random
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

TEXT = "Night falls, the queue is long, and every line will have its answer. " * 10
BODY = (
    '{"id":"chatcmpl-stub","object":"chat.completion","created":1,"model":"stub","choices":[{"index":0,"message":'
    f'{{"role":"assistant","content":"{TEXT}"}},"finish_reason":"stop"}}],'
    '"usage":{"prompt_tokens":20,"completion_tokens":150,"total_tokens":170}}'
).encode()
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# The 99th percentile of a normal distribution, in standard deviations.
_Z99 = 2.326


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


RESPONSE = _response(BODY)


class Latency:
    """The seconds of an answer: always ``median``, or log-normal if there is a ``p99``.

    The draws depend on ``seed`` only, so another instance with the same seed gives the same latencies.
    """

    def __init__(self, median: float, p99: float | None = None, seed: int | None = None) -> None:
        self._median = median
        self._sigma = math.log(p99 / median) / _Z99 if p99 else 0.0
        self._random = random.Random(seed)

    def draw(self) -> float:
        return self._median * math.exp(self._random.gauss(0, self._sigma)) if self._sigma else self._median


class _Stub(asyncio.Protocol):
    latency: Latency
    given: ClassVar = {"answers": 0, "seconds": 0.0, "longest": 0.0}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, head_end)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < end:
            return
        asked, self._buffer = self._buffer[:4], self._buffer[end:]
        if asked == b"GET ":
            self._answer(_response(json.dumps(self.given).encode()))
            return
        seconds = self.latency.draw()
        self.given["answers"] += 1
        self.given["seconds"] += seconds
        self.given["longest"] = max(self.given["longest"], seconds)
        self._loop.call_later(seconds, self._answer, RESPONSE)

    def _answer(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


async def _serve(port: int, latency: Latency, certificate: str | None) -> None:
    _Stub.latency = latency
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Stub, "127.0.0.1", port, backlog=4096, ssl=context)
    await server.serve_forever()


@contextmanager
def upstream(
    latency_ms: float, p99_ms: float | None = None, seed: int | None = None, certificate: Path | None = None
) -> Iterator[str]:
    """A stub in its own process while the block runs. Yields its base URL.

    With a ``certificate`` (a PEM file with its key) it uses TLS.
    """
    from local.processes import free_port

    port = free_port()
    given = {"--p99-ms": p99_ms, "--seed": seed, "--certificate": certificate}
    options = [str(word) for name, value in given.items() if value is not None for word in (name, value)]
    process = subprocess.Popen([sys.executable, "-m", "bench.stub", str(port), str(latency_ms), *options])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def given(url: str) -> dict[str, Any]:
    """The totals of the stub at ``url``: ``answers``, the sum of their ``seconds``, and the ``longest``."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def _main() -> None:
    parser = argparse.ArgumentParser(description="A stub upstream that answers until it is killed.")
    parser.add_argument("port", type=int)
    parser.add_argument("latency_ms", type=float)
    parser.add_argument("--p99-ms", type=float, help="makes the latency log-normal, with latency_ms as its median")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--certificate", help="use TLS, with this PEM file that also holds the key")
    given = parser.parse_args()
    latency = Latency(given.latency_ms / 1000, given.p99_ms and given.p99_ms / 1000, given.seed)
    asyncio.run(_serve(given.port, latency, given.certificate))


if __name__ == "__main__":
    _main()
