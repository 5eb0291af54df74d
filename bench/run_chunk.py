"""How close a worker comes to a bare aiohttp loop, and to the best that any scheduler could do.

Ours is the whole of run_chunk's work: the input read from an emulated S3 by ranges, parsed, sent, judged, counted, the
model rewritten, parts written, segments sealed. The peers only send and read answers. All at 256 in flight against
the same stub upstream on loopback.
"""

import asyncio
import heapq
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiohttp
from nightshift import aws, files, plan, results, settings
from nightshift.chunk import ChunkRun
from nightshift.jsonl import FileCheck
from nightshift.outputs import OutputLine, SealSummary
from nightshift.plan import Segment
from nightshift.routing import Route, Sku
from nightshift.upstream import Upstream

from bench import report, stub
from bench.emulator import emulated_s3

IN_FLIGHT = 256
PROMPT = "Summarise the following in one sentence. " + "The night shift answers what the day has asked. " * 8


def lines(count: int) -> list[bytes]:
    body = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
    return [
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
        for n in range(count)
    ]


def bodies(count: int) -> list[bytes]:
    return [json.dumps(json.loads(line)["body"]).encode() for line in lines(count)]


async def _workers(count: int, send: Callable[[int], Awaitable[Any]]) -> None:
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def bare_aiohttp(url: str, count: int) -> float:
    """Bytes in, bytes out; requests per second."""
    payloads = bodies(count)

    async def run() -> float:
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def send(number: int) -> None:
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{url}/chat/completions", data=payloads[number], headers=headers) as answer:
                    await answer.read()

            started = time.perf_counter()
            await _workers(count, send)
            return count / (time.perf_counter() - started)

    return asyncio.run(run())


def openai_client(url: str, count: int, with_aiohttp: bool) -> float:
    """The OpenAI SDK's async client, with its default transport or aiohttp's."""
    import openai

    async def run() -> float:
        transport = openai.DefaultAioHttpClient() if with_aiohttp else None
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, http_client=transport) as client:

            async def send(_: int) -> None:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])

            started = time.perf_counter()
            await _workers(count, send)
            return count / (time.perf_counter() - started)

    return asyncio.run(run())


class _Keep:
    """As functions/run_chunk has it, without the table: results go to the emulated S3."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id

    def read(self, segment: Segment) -> bytes:
        return files.read_range("acct", "file", segment.start, segment.end)

    def sealed(self, segments: list[Segment]) -> list[SealSummary | None]:
        return results.all_sealed(self._batch_id, segments)

    def parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        return results.read_parts(self._batch_id, 0, first_line, end_line)

    def write_part(self, lines: list[OutputLine]) -> None:
        results.write_part(self._batch_id, 0, lines)

    def write_sealed(self, segment: Segment, lines: list[OutputLine]) -> SealSummary:
        return results.write_sealed(self._batch_id, segment, lines)

    def progress(self, completed: int, failed: int) -> None:
        """The table's share is counted elsewhere."""

    def wanted(self) -> bool:
        return True


def ours(url: str, count: int) -> float:
    """The whole of a chunk; lines per second."""
    content = b"\n".join(lines(count))
    check = FileCheck()
    check.feed(content)
    check.finish()
    spans = plan.segments(check.ends)
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=files.key("acct", "file"), Body=content)
    batch_id = f"batch_{time.time_ns()}"
    route = Route(model="m", provider="stub", base_url=url, upstream_model="stub", sku=Sku("stub"))

    async def run() -> float:
        started = time.perf_counter()
        async with Upstream(route, "key", IN_FLIGHT) as upstream:
            chunk = ChunkRun(
                batch_id=batch_id,
                model="m",
                upstream_model="stub",
                segments=spans,
                keep=_Keep(batch_id),
                send=upstream.send,
                concurrency=IN_FLIGHT,
                request_seconds=600,
                ends_at=time.time() + 3600,
                expires_at=time.time() + 3600,
            )
            result = await chunk.run()
        assert (result.state, chunk.completed) == ("done", count), (result, chunk.completed)
        return count / (time.perf_counter() - started)

    return asyncio.run(run())


def best_makespan(latencies: list[float], workers: int) -> float:
    """When ``workers`` that take one request after the other, longest first, are done: what no order beats by much."""
    free = [0.0] * workers
    for latency in sorted(latencies, reverse=True):
        heapq.heapreplace(free, free[0] + latency)
    return max(free)


def main() -> None:
    quick = "--quick" in sys.argv
    times, count = (2, 4_000) if quick else (5, 10_000)
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    with emulated_s3():
        with stub.upstream(50) as url:
            figures = report.repeat(
                {
                    "bare aiohttp, bytes in and out": lambda: bare_aiohttp(url, count),
                    "run_chunk, whole": lambda: ours(url, count),
                    "openai[aiohttp]": lambda: openai_client(url, count // 5, True),
                    "openai, default": lambda: openai_client(url, count // 20, False),
                },
                times,
            )
        bare = figures["bare aiohttp, bytes in and out"]
        rows += [report.row(f"50 ms: {name}", values, "req/s", bare) for name, values in figures.items()]
        medians = {row["name"].removeprefix("50 ms: "): row["median"] for row in rows}
        whole = medians["run_chunk, whole"]
        targets += [
            report.target("run_chunk against bare aiohttp", whole / medians["bare aiohttp, bytes in and out"], 0.6),
            report.target("run_chunk against openai[aiohttp]", whole / medians["openai[aiohttp]"], 5),
            report.target("run_chunk against openai", whole / medians["openai, default"], 12),
        ]
        with stub.upstream(1000) as url:
            paced = report.repeat({"run_chunk, whole": lambda: ours(url, count)}, times)["run_chunk, whole"]
        ideal = [float(IN_FLIGHT)]
        rows.append(report.row("1 s: run_chunk, whole", paced, "req/s", ideal))
        # A run ends with the last answers of its last round: the ideal has them too.
        rounds = -(-count // IN_FLIGHT)
        targets.append(report.target("share of the ideal rate at 1 s", rows[-1]["median"] * rounds / count, 0.97))
        if not quick:
            latency = stub.Latency(0.2, 2.0, seed=1)
            bound = best_makespan([latency.draw() for _ in range(50_000)], IN_FLIGHT)
            with stub.upstream(200, 2000) as url:
                makespans = [50_000 / ours(url, 50_000) for _ in range(3)]
            rows.append(report.row("log-normal 0.2 s / 2 s: makespan of 50,000 lines", makespans, "s", [bound]))
            targets.append(report.target("makespan against the best", rows[-1]["ratio"], 1.10, at_least=False))
    report.publish("run_chunk", rows, targets, report.versions("aiohttp", "openai", "msgspec", "boto3"))


if __name__ == "__main__":
    main()
