"""An OpenAI-compatible upstream simulator. It answers at once, and can be made slow or faulty.

`python -m local.upstream --port 8400 --control-port 8401` serves on the first port `POST /v1/chat/completions`,
`/v1/responses`, `/v1/embeddings` (of 8 floats, or as many as `dimensions` asks for), `/v1/completions` and
`/v1/moderations`, and the provider's `/v1/files` and `/v1/batches`. The second port serves its control, also while
the upstream is down:

PUT /control  changes any of these settings. Without a change nothing is faulty.
    held (false): no request is answered until this is false again
    latency_ms (0), jitter_ms (0): an answer takes latency ± jitter, uniformly distributed
    error_rate ({}): share of requests that get an error status, such as {"429": 0.05, "500": 0.05}. Requests in a batch
        draw it too, and are then in its error file
    retry_after_s (null): Retry-After of 429 and 503
    hang_rate (0), reset_rate (0): share of requests never answered, and of answers that break off
    answer_bytes (0): minimum size of an answer, filled up with text where it has any
    down (false): refuse connections. Batches go on meanwhile
  A batch's way; a change reaches batches that run, but their answers are drawn when they are created:
    batch_start_seconds (0): time in `validating`
    batch_seconds (0): time in `in_progress`, while the counts advance evenly
    batch_cancel_seconds (0): time in `cancelling`
    batch_stuck (false): batches stay as they are until this is false again; they can be cancelled
    batch_fail ({}): {"code": "token_limit_exceeded", "times": 2} lets the next two batches fail at validation
    batch_bad_lines (0): `custom_id`s that validation refuses, or a share of all lines, drawn by the body, so that a
        line is refused each time. The batch is `failed`, and `errors` names the lines
    batch_expire_after (null): share of lines answered when a batch ends `expired`
    max_batch_requests (50000), max_queued_tokens (null): a batch over them is `failed`. A token is four bytes of input
    max_batch_bytes (200 MiB): a larger upload is a 400
  A batch's files:
    batch_error_rate (0): share of lines with an `error` and no response, half of them in the output file
    batch_missing_rate (0), batch_double_rate (0): share of lines that are in neither file, or twice in one
    batch_unknown_rate (0): share of lines followed by one whose `custom_id` nobody sent
    files_late_seconds (0): so long after a batch's end its files are 404; half as long the batch has no ids of them
  Calls to `/v1/files` and `/v1/batches`:
    batch_api_error_rate ({}): share of calls that get an error status, such as {"429": 0.1}
    batch_api_reset_rate (0): share of answers that break off half-way
    batch_api_error_after (false): whether a call that fails has had its effect
    cancel_conflict (false): a batch ends when it is to be cancelled, so that the cancel is refused with 409
GET /control  returns the settings and the counters:
    requests: how often each request was received, by its Idempotency-Key or a digest of its body
    submitted: how often each body was in a batch that passed validation, by a digest, which is also in its answer's id
        (`chatcmpl-<digest>`), where the endpoint's answers have one
    batch_api: calls by method, path and status; `reset` is an answer that broke off
    files_uploaded, files_deleted, batches_created, cancels: what had an effect, whatever was answered
    files_held: files that are not deleted, outputs included
DELETE /control  resets settings and counters; files and batches stay
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
import ssl
from dataclasses import asdict

from aiohttp import web

from local import replies
from local.answers import ANSWERS, UNANSWERABLE, answer
from local.provider_api import Provider
from local.simulation import Settings, Simulation, drawn_status

# OpenAI's limit of a file.
MAX_BODY_BYTES = 512 * 1024 * 1024


class Upstream:
    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._simulation = Simulation()
        self._changed = asyncio.Condition()
        self._provider = Provider(self._simulation)
        self._runner: web.AppRunner | None = None

    def control(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/control", self._report)
        app.router.add_put("/control", self._change)
        app.router.add_delete("/control", self._reset)
        return app

    async def open(self) -> None:
        if self._runner is None:
            app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._provider.middleware])
            for endpoint in ANSWERS:
                app.router.add_post(endpoint, self._take)
            app.router.add_routes(self._provider.routes())
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.TCPSite(self._runner, self._host, self._port, backlog=2048, ssl_context=self._tls).start()

    async def close(self) -> None:
        """Refuse new connections and break open ones, as a crash does."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _report(self, _: web.Request) -> web.Response:
        counters = self._simulation.counters.report() | {"files_held": len(self._provider.files)}
        return web.json_response({"settings": asdict(self._simulation.settings), **counters})

    async def _change(self, request: web.Request) -> web.Response:
        try:
            self._simulation.settings.change(await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        await self._wake_held()
        await (self.close() if self._simulation.settings.down else self.open())
        return web.json_response(asdict(self._simulation.settings))

    async def _reset(self, _: web.Request) -> web.Response:
        self._simulation.reset()
        await self._wake_held()
        await self.open()
        return web.json_response(asdict(self._simulation.settings))

    async def _wake_held(self) -> None:
        """Let the requests that are held see the settings."""
        async with self._changed:
            self._changed.notify_all()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        settings, counters = self._simulation.settings, self._simulation.counters
        counters.received += 1
        counters.requests[_request_of(request.headers.get("Idempotency-Key"), body)] += 1
        counters.in_flight += 1
        counters.most_in_flight = max(counters.most_in_flight, counters.in_flight)
        try:
            return await self._answer(request, body, settings)
        finally:
            counters.in_flight -= 1

    async def _answer(self, request: web.Request, body: bytes, settings: Settings) -> web.StreamResponse:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._simulation.settings.held)
        delay = settings.latency_ms + random.uniform(-settings.jitter_ms, settings.jitter_ms)
        if delay > 0:
            await asyncio.sleep(delay / 1000)
        if random.random() < settings.hang_rate:
            self._simulation.counters.hung += 1
            await asyncio.sleep(3600)
        if random.random() < settings.reset_rate:
            self._simulation.counters.reset += 1
            return await replies.break_off(request)
        if (status := drawn_status(settings.error_rate)) is not None:
            return self._error(status, settings)
        try:
            answered = answer(request.path, json.loads(body), settings.answer_bytes)
        except UNANSWERABLE:
            return self._error(400, settings)
        self._simulation.counters.by_status["200"] += 1
        return web.json_response(answered, dumps=replies.dumps)

    def _error(self, status: int, settings: Settings) -> web.Response:
        self._simulation.counters.by_status[str(status)] += 1
        return replies.error(status, settings)


def _request_of(idempotency_key: str | None, body: bytes) -> str:
    """What a request is counted as: its line, whichever try it is, or its body where it has no key."""
    if idempotency_key is None:
        return hashlib.sha256(body).hexdigest()
    return re.sub(r"^(batch_req_\w+)-\d+$", r"\1", idempotency_key)


async def serve(port: int, control_port: int, host: str = "127.0.0.1", certificate: str | None = None) -> None:
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    upstream = Upstream(host, port, tls)
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
    parser.add_argument("--certificate", help="speak TLS, with this PEM file that also holds the key")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.port, options.control_port, certificate=options.certificate))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
