# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp", "litellm", "openai[aiohttp]"]
# ///
"""Clients that could be used instead of a worker, each as its documentation advises, in its own process.

They have their own environment, with the versions that people install today. It is locked in `peers.py.lock`, created
by uv at the first use, and updated by `uv lock --upgrade --script bench/peers.py`. The clients only send requests and
read answers. They read no input and write no results.
"""

import asyncio
import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

IN_FLIGHT = 256
PROMPT = "Summarise the following in one sentence. " + "The night shift answers what the day has asked. " * 8
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
BODY = json.dumps({"model": "m", "messages": MESSAGES}).encode()

# Sends one request and reads its answer.
Send = Callable[[], Awaitable[Any]]


class _Connection(asyncio.Protocol):
    """A minimal client: it writes bytes, and reads as many as Content-Length announces."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""
        self._answered: asyncio.Future[None]

    def ask(self, request: bytes) -> asyncio.Future[None]:
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.rpartition(b"Content-Length: ")[2]):
            self._buffer = b""
            self._answered.set_result(None)


@asynccontextmanager
async def protocol(url: str) -> AsyncIterator[Send]:
    """A bare asyncio protocol, as the upper limit."""
    address = urlsplit(url)
    head = f"POST {address.path}/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(BODY)}"
    request = head.encode() + b"\r\n\r\n" + BODY
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []

    async def send() -> None:
        if idle:
            connection = idle.pop()
        else:
            connection = (await loop.create_connection(_Connection, str(address.hostname), address.port or 80))[1]
        await connection.ask(request)
        idle.append(connection)

    yield send


@asynccontextmanager
async def bare_aiohttp(url: str) -> AsyncIterator[Send]:
    """aiohttp, bytes in and bytes out."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def send() -> None:
            headers = {"Content-Type": "application/json"}
            async with session.post(f"{url}/chat/completions", data=BODY, headers=headers) as answer:
                await answer.read()

        yield send


@asynccontextmanager
async def _openai(url: str, **options: Any) -> AsyncIterator[Send]:
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="k", **options) as client:
        yield lambda: client.chat.completions.create(model="m", messages=MESSAGES)


def openai_default(url: str) -> AbstractAsyncContextManager[Send]:
    """The OpenAI SDK's async client."""
    return _openai(url)


def openai_aiohttp(url: str) -> AbstractAsyncContextManager[Send]:
    """The OpenAI SDK with aiohttp, as its README advises for concurrency."""
    import openai

    return _openai(url, http_client=openai.DefaultAioHttpClient())


@asynccontextmanager
async def litellm(url: str) -> AsyncIterator[Send]:
    """LiteLLM with one aiohttp session for all calls, as its page "Shared Session Support" advises."""
    # Otherwise LiteLLM loads prices from GitHub.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import aiohttp
    from litellm import acompletion  # type: ignore[import-not-found]  # only the peers' environment has it

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        yield lambda: acompletion(
            model="openai/m", messages=MESSAGES, api_base=url, api_key="k", shared_session=session
        )


PEERS: dict[str, Callable[[str], AbstractAsyncContextManager[Send]]] = {
    "protocol": protocol,
    "aiohttp": bare_aiohttp,
    "openai": openai_default,
    "openai[aiohttp]": openai_aiohttp,
    "litellm": litellm,
}


def cpu_seconds() -> float:
    """The CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _run(peer: str, url: str, count: int) -> tuple[float, float]:
    """Send ``count`` requests. Returns the seconds and the CPU seconds."""
    async with PEERS[peer](url) as send:
        numbers = iter(range(count))

        async def work() -> None:
            for _ in numbers:
                await send()

        started, busy = time.perf_counter(), cpu_seconds()
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return time.perf_counter() - started, cpu_seconds() - busy


class Peer:
    """One of ``PEERS`` in its own process, with our environment or with that of the peers."""

    def __init__(self, name: str) -> None:
        command = [sys.executable]
        if name not in ("protocol", "aiohttp"):
            uv = shutil.which("uv") or str(Path(__file__).parents[1] / ".uv" / "bin" / "uv")
            command = [uv, "run", "--quiet", "--frozen", "--python", sys.executable, "--script"]
        self._process = subprocess.Popen(
            [*command, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = self._answer()

    def run(self, url: str, count: int) -> tuple[float, float]:
        assert self._process.stdin is not None
        print(url, count, file=self._process.stdin, flush=True)
        seconds, busy = self._answer()
        return seconds, busy

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate()


@contextmanager
def started(*names: str) -> Iterator[list[Peer]]:
    peers: list[Peer] = []
    try:
        for name in names:
            peers.append(Peer(name))  # noqa: PERF401 (a comprehension would not stop the first ones if a later one fails)
        yield peers
    finally:
        for peer in peers:
            peer.stop()


def _main() -> None:
    """Print the versions, then for each line "URL COUNT" of stdin what ``_run`` returns."""
    peer = sys.argv[1]
    packages = {"protocol": (), "aiohttp": ("aiohttp",), "litellm": ("litellm", "openai", "aiohttp")}
    used = packages.get(peer, ("openai", "aiohttp"))
    print(json.dumps({name: importlib.metadata.version(name) for name in used}), flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            url, count = line.split()
            print(json.dumps(runner.run(_run(peer, url, int(count)))), flush=True)


if __name__ == "__main__":
    _main()
