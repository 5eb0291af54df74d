"""An OpenAI-compatible upstream simulator. It answers at once, and can be made slow or faulty.

`python -m local.upstream --port 8400 --control-port 8401` serves `POST /v1/chat/completions` on the first port. The
second port serves its control, also while the upstream is down:

PUT /control  changes any of these settings:
    latency_ms (0), jitter_ms (0): an answer takes latency ± jitter, uniformly distributed
    error_rate ({}): share of requests that get an error status, such as {"429": 0.05, "500": 0.05}
    retry_after_s (null): Retry-After of 429 and 503
    hang_rate (0), reset_rate (0): share of requests never answered, and of answers that break off
    answer_bytes (0): minimum size of an answer, filled up with text
    down (false): refuse connections
GET /control  returns the settings and the counters. `requests` counts how often each request was received, by its
    Idempotency-Key or a digest of its body
DELETE /control  resets settings and counters
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

from aiohttp import web

PATH = "/v1/chat/completions"


@dataclass
class Settings:
    latency_ms: float = 0
    jitter_ms: float = 0
    error_rate: dict[str, float] = field(default_factory=dict)
    retry_after_s: float | None = None
    hang_rate: float = 0
    reset_rate: float = 0
    answer_bytes: int = 0
    down: bool = False

    def change(self, wanted: dict[str, Any]) -> None:
        """Change the settings in ``wanted``.

        Raises:
            ValueError: a setting is unknown.
        """
        known = {each.name for each in fields(self)}
        if unknown := wanted.keys() - known:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        for name, value in wanted.items():
            setattr(self, name, value)


@dataclass
class Counters:
    received: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    hung: int = 0
    reset: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


class Upstream:
    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._settings = Settings()
        self._counters = Counters()
        self._runner: web.AppRunner | None = None

    def control(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/control", self._report)
        app.router.add_put("/control", self._change)
        app.router.add_delete("/control", self._reset)
        return app

    async def open(self) -> None:
        if self._runner is None:
            app = web.Application(client_max_size=64 * 1024 * 1024)
            app.router.add_post(PATH, self._complete)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.TCPSite(self._runner, self._host, self._port, backlog=2048).start()

    async def close(self) -> None:
        """Refuse new connections and break open ones, as a crash does."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _report(self, _: web.Request) -> web.Response:
        twice = sum(count > 1 for count in self._counters.requests.values())
        report = {"settings": asdict(self._settings), **vars(self._counters), "received_twice_or_more": twice}
        return web.json_response(report)

    async def _change(self, request: web.Request) -> web.Response:
        try:
            self._settings.change(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        await (self.close() if self._settings.down else self.open())
        return web.json_response(asdict(self._settings))

    async def _reset(self, _: web.Request) -> web.Response:
        self._settings, self._counters = Settings(), Counters()
        await self.open()
        return web.json_response(asdict(self._settings))

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        settings, counters = self._settings, self._counters
        counters.received += 1
        counters.requests[_request_of(request.headers.get("Idempotency-Key"), body)] += 1
        counters.in_flight += 1
        counters.most_in_flight = max(counters.most_in_flight, counters.in_flight)
        try:
            return await self._answer(request, body, settings)
        finally:
            counters.in_flight -= 1

    async def _answer(self, request: web.Request, body: bytes, settings: Settings) -> web.StreamResponse:
        delay = settings.latency_ms + random.uniform(-settings.jitter_ms, settings.jitter_ms)
        if delay > 0:
            await asyncio.sleep(delay / 1000)
        if random.random() < settings.hang_rate:
            self._counters.hung += 1
            await asyncio.sleep(3600)
        if random.random() < settings.reset_rate:
            self._counters.reset += 1
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"id":')
            if request.transport is not None:
                request.transport.abort()
            return response
        draw = random.random()
        for status, share in settings.error_rate.items():
            draw -= share
            if draw < 0:
                return self._error(int(status), settings)
        try:
            wanted = json.loads(body)
            completion = _completion(wanted, settings.answer_bytes)
        except (ValueError, KeyError, TypeError, IndexError):
            return self._error(400, settings)
        self._counters.by_status["200"] += 1
        # Raw UTF-8, as vLLM answers.
        return web.json_response(completion, dumps=partial(json.dumps, ensure_ascii=False))

    def _error(self, status: int, settings: Settings) -> web.Response:
        self._counters.by_status[str(status)] += 1
        headers = {}
        if settings.retry_after_s is not None and status in (429, 503):
            headers["Retry-After"] = f"{settings.retry_after_s:g}"
        error = {"message": f"simulated {status}", "type": "simulated_error", "param": None, "code": None}
        return web.json_response({"error": error}, status=status, headers=headers)


def _request_of(idempotency_key: str | None, body: bytes) -> str:
    """What a request is counted as: its line, whichever try it is, or its body where it has no key."""
    if idempotency_key is None:
        return hashlib.sha256(body).hexdigest()
    return re.sub(r"^(batch_req_\w+)-\d+$", r"\1", idempotency_key)


def _completion(wanted: dict[str, Any], at_least: int = 0) -> dict[str, Any]:
    """A chat completion whose text is the first sentence of the last paragraph of the last message, with filler text
    up to ``at_least`` bytes."""
    content = wanted["messages"][-1]["content"]
    text = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    paragraph = text.strip().split("\n\n")[-1]
    sentence = re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()), maxsplit=1)[0]
    prompt_tokens, completion_tokens = len(text.split()), len(sentence.split())
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:24]
    if at_least > len(sentence):
        sentence = sentence + " " + "And so on. " * ((at_least - len(sentence)) // 11)
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": wanted["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": sentence, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


async def serve(port: int, control_port: int, host: str = "127.0.0.1") -> None:
    upstream = Upstream(host, port)
    await upstream.open()
    control = web.AppRunner(upstream.control(), access_log=None)
    await control.setup()
    await web.TCPSite(control, host, control_port).start()
    try:
        await asyncio.Event().wait()
    finally:
        await upstream.close()
        await control.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.port, options.control_port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
