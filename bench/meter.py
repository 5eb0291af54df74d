"""Counts what a batch on a local stack uses of AWS.

The calls of every function go through a proxy that counts them. It is set by AWS_ENDPOINT_URL in the function's
environment, without product code. Invocations and their milliseconds come from Lambda's log (START, REPORT), and state
transitions from the histories of the executions and of the Map's children.
"""

import asyncio
import json
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from bench.dynamodb import WRITES, units
from bench.stack import FUNCTIONS, configured, cpu_seconds
from local.processes import workers
from tests.e2e.conftest import Local

# Headers of one connection, which are not forwarded.
HOP_HEADERS = frozenset({"connection", "transfer-encoding", "content-length", "expect"})
# The start of a child workflow is billed as one transition, in addition to the states that it enters.
CHILD_START = 1
# The bytes that CloudWatch adds to each log event.
LOG_OVERHEAD_BYTES = 26


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function to AWS. ``units`` are DynamoDB's request units."""

    function: str
    service: str
    operation: str
    units: float = 0


@dataclass
class Usage:
    """What was used between the start and the stop of the meter."""

    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    units: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    invocations: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    slices: Counter[str] = field(default_factory=Counter)
    cpu: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    transitions: int = 0
    map_runs: int = 0
    took: float = 0  # seconds from the upload to the end of the batch
    latency: float = 0  # seconds of a request
    log_bytes: int = 0

    def plus(self, other: "Usage", times: float = 1) -> "Usage":
        """This and ``other``, so many times; of -1 times the difference."""
        both = deepcopy(self)
        for each in fields(Usage):
            ours, theirs = getattr(both, each.name), getattr(other, each.name)
            if isinstance(ours, dict):
                for key, amount in theirs.items():
                    ours[key] += times * amount
            else:
                setattr(both, each.name, ours + times * theirs)
        return both

    def of(self, service: str, *operations: str) -> int:
        """How many calls of these operations there were."""
        return sum(
            count for (_, found, operation), count in self.calls.items() if found == service and operation in operations
        )


class Meter:
    def __init__(self, local: Local) -> None:
        self._local = local
        self._calls: list[Call] = []

    def start(self) -> None:
        self._calls.clear()
        self._since = time.time()
        self._cpu = {pid: cpu_seconds(pid) for pid, _ in workers(self._local.folder)}

    def stop(self, batch_id: str) -> Usage:
        """What was used since ``start``: by all functions, and state transitions by this batch."""
        usage = Usage()
        for pid, function in workers(self._local.folder):
            usage.cpu[function] += cpu_seconds(pid) - self._cpu.get(pid, 0.0)
        for call in self._calls:
            usage.calls[call.function, call.service, call.operation] += 1
            if call.units:
                usage.units[call.function, "write" if call.operation in WRITES else "read"] += call.units
        self._read_logs(usage)
        self._read_executions(batch_id, usage)
        return usage

    # --- the proxy -----------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request, function: str, session: aiohttp.ClientSession) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
        url = self._local.description["aws_endpoint_url"] + request.raw_path
        async with session.request(
            request.method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
        ) as answer:
            content = await answer.read()
            self._calls.append(call_of(function, request, body, content))
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_HEADERS}
            if request.method == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, headers=kept, body=content)

    # --- logs and histories --------------------------------------------------------------------------------------

    def _read_logs(self, usage: Usage) -> None:
        logs = self._local.aws("logs")
        for function in FUNCTIONS:
            pages = logs.get_paginator("filter_log_events").paginate(
                logGroupName=_log_group(function), startTime=int(self._since * 1000)
            )
            for message in (event["message"] for page in pages for event in page["events"]):
                usage.log_bytes += len(message.encode()) + LOG_OVERHEAD_BYTES
                report = re.match(r"REPORT RequestId: \S+\tDuration: ([\d.]+) ms", message)
                if report:
                    usage.invocations[function] += 1
                    usage.seconds[function] += float(report[1]) / 1000
                elif '"slice ended"' in message:
                    usage.slices[json.loads(message)["state"]] += 1

    def _read_executions(self, batch_id: str, usage: Usage) -> None:
        """Count the states that the batch's executions and the Map's children enter, and the children's starts.

        The emulator has no history of a child, so its states are computed from its slices. Each slice enters RunChunk
        and IsChunkDone, some enter WaitForUpstream, and the child ends in ChunkEnded. A batch of one chunk has no Map.
        """
        stepfunctions = self._local.aws("stepfunctions")
        parents = [each["executionArn"] for each in executions(self._local, batch_id)]
        history = stepfunctions.get_paginator("get_execution_history")
        pages = [page for parent in parents for page in history.paginate(executionArn=parent)]
        entered = sum(str(event["type"]).endswith("StateEntered") for page in pages for event in page["events"])
        runs = [run for parent in parents for run in stepfunctions.list_map_runs(executionArn=parent)["mapRuns"]]
        usage.transitions, usage.map_runs = entered, len(runs)
        if runs:
            children = sum(len(stepfunctions.list_executions(mapRunArn=run["mapRunArn"])["executions"]) for run in runs)
            slices = usage.slices
            usage.transitions += children * (CHILD_START + 1) + 2 * slices.total() + slices["wait"]


def executions(local: Local, batch_id: str) -> list[dict[str, Any]]:
    """The batch's executions, as Step Functions lists them."""
    stepfunctions = local.aws("stepfunctions")
    [machine] = [each["stateMachineArn"] for each in stepfunctions.list_state_machines()["stateMachines"]]
    pages = stepfunctions.get_paginator("list_executions").paginate(stateMachineArn=machine)
    return [each for page in pages for each in page["executions"] if each["name"].partition("-")[0] == batch_id]


def _log_group(function: str) -> str:
    return f"/bench/{function}"


def call_of(function: str, request: web.Request, body: bytes, answer: bytes) -> Call:
    target = request.headers.get("X-Amz-Target", "")
    if target:
        service, _, operation = target.partition(".")
        service = service.partition("_")[0].lower()
        return Call(function, service, operation, units(operation, body, answer) if service == "dynamodb" else 0)
    if request.path.endswith("/invocations"):
        return Call(function, "lambda", "Invoke")
    if request.method == "GET" and "list-type" in request.query:
        return Call(function, "s3", "LIST")
    if request.method == "PUT" and "x-amz-copy-source" in request.headers:
        return Call(function, "s3", "COPY")
    return Call(function, "s3", request.method)


@contextmanager
def metered(local: Local) -> Iterator[Meter]:
    """Send the calls of every function through a proxy while the block runs. Each function has its own port."""
    meter = Meter(local)
    loop = asyncio.new_event_loop()
    ports: dict[str, int] = {}
    ready, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["User-Agent", "Accept"]) as session:
            runners = []
            for function in FUNCTIONS:

                async def handle(request: web.Request, function: str = function) -> web.Response:
                    return await meter.handle(request, function, session)

                app = web.Application(client_max_size=1 << 30)
                app.router.add_route("*", "/{path:.*}", handle)
                runner = web.AppRunner(app, access_log=None)
                await runner.setup()
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                ports[function] = runner.addresses[0][1]
                runners.append(runner)
            ready.set()
            await over.wait()
            for runner in runners:
                await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()], daemon=True)
    thread.start()
    ready.wait(10)
    try:
        with ExitStack() as environments:
            # Each function has its own log group, because REPORT lines do not name their function.
            for name, found in configured(local).items():
                log = {"LogFormat": "JSON", "LogGroup": _log_group(name)}
                local.aws("logs").create_log_group(logGroupName=log["LogGroup"])
                local.aws("lambda").update_function_configuration(FunctionName=found["FunctionName"], LoggingConfig=log)
            for function, port in ports.items():
                url = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
                environments.enter_context(local.environment(function, **url))
            yield meter
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
