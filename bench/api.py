"""How many calls the API answers: create (20 lines), retrieve and list, with 16 clients at once on a local stack.

Throughput and latency depend on the emulator as much as on our code, because it runs API Gateway, Lambda, DynamoDB and
S3 in one Python process. So the CPU time of our functions is measured separately. Requests per CPU second of our own
code are what a Lambda with a whole core could answer.

The state machine of this stack does nothing, so that the batches do not run.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench import report
from bench.stack import cpu_seconds, input_file, stack
from local.processes import workers
from tests.e2e.conftest import Local

CLIENTS = 16
LINES = 20
NOTHING = json.dumps({"StartAt": "Nothing", "States": {"Nothing": {"Type": "Succeed"}}})


@dataclass
class Figures:
    """Figures of one kind of call: one for each turn, and the seconds of every call."""

    rates: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    emulators: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Load:
    def __init__(self, local: Local) -> None:
        self._local = local
        machine = local.aws("stepfunctions").list_state_machines()["stateMachines"][0]["stateMachineArn"]
        local.aws("stepfunctions").update_state_machine(stateMachineArn=machine, definition=NOTHING)
        content = input_file(LINES, 300)
        file = local.client.files.create(file=("input.jsonl", content), purpose="batch")
        wanted = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = local.client.batches.create(**wanted)  # type: ignore[arg-type]
        self.calls: dict[str, tuple[str, str, dict[str, Any] | None]] = {
            "create": ("POST", "/batches", wanted),
            "retrieve": ("GET", f"/batches/{batch.id}", None),
            "list": ("GET", "/batches?limit=20", None),
        }
        self._listed = batch.id

    def run(self, name: str, seconds: float, figures: Figures | None = None) -> None:
        """Run all clients for ``seconds``, each with one call at a time."""
        method, path, body = self.calls[name]
        url = self._local.description["base_url"] + path
        headers = {"Authorization": f"Bearer {self._local.description['api_key']}"}
        taken: list[float] = []

        async def client(session: aiohttp.ClientSession, over: float) -> None:
            while time.perf_counter() < over:
                started = time.perf_counter()
                async with session.request(method, url, json=body, headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                taken.append(time.perf_counter() - started)

        async def clients() -> None:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CLIENTS)) as session:
                over = time.perf_counter() + seconds
                await asyncio.gather(*(client(session, over) for _ in range(CLIENTS)))

        before = self._cpu()
        started = time.perf_counter()
        asyncio.run(clients())
        took = time.perf_counter() - started
        ours, emulator = (after - then for after, then in zip(self._cpu(), before, strict=True))
        if figures is not None:
            figures.rates.append(len(taken) / took)
            figures.ours.append(ours / len(taken))
            figures.emulators.append(emulator / len(taken))
            figures.seconds += taken
            print(f"  {name}: {len(taken) / took:.1f} a second", file=sys.stderr, flush=True)

    def _cpu(self) -> tuple[float, float]:
        """CPU seconds so far, of our functions and of the emulator."""
        ours = sum(cpu_seconds(pid) for pid, _ in workers(self._local.folder))
        return ours, cpu_seconds(self._local.description["pids"]["emulator"])

    def delete_created(self) -> None:
        """Delete the batches that create has made, because every create reads the open batches of the account."""
        dynamodb = self._local.aws("dynamodb")
        [table] = [name for name in dynamodb.list_tables()["TableNames"] if "-Batches-" in name]
        pages = dynamodb.get_paginator("scan").paginate(TableName=table, ProjectionExpression="pk, sk")
        for item in [item for page in pages for item in page["Items"]]:
            if item["sk"]["S"] != self._listed:
                dynamodb.delete_item(TableName=table, Key=item)


def percentile(figures: list[float], share: float) -> float:
    return statistics.quantiles(figures, n=1000, method="inclusive")[round(share * 1000) - 1]


def main() -> None:
    turns, seconds = (2, 2.0) if "--quick" in sys.argv else (3, 2.0)
    figures: defaultdict[str, Figures] = defaultdict(Figures)
    with stack("api") as local:
        load = Load(local)
        for name in load.calls:  # for the cold start of every worker
            load.run(name, 2)
        for _ in range(turns):
            for name in load.calls:
                load.run(name, seconds, figures[name])
                if name == "list":  # only now, so that there are batches to list
                    load.delete_created()
    rows: list[dict[str, Any]] = []
    for name, found in figures.items():
        each = [1000 * second for second in found.seconds]
        rows += [
            report.row(f"{name}: {CLIENTS} clients", found.rates, "req/s"),
            report.row(f"{name}: p50", [percentile(each, 0.5)], "ms"),
            report.row(f"{name}: p99", [percentile(each, 0.99)], "ms"),
            report.row(f"{name}: a CPU second of our own code", [1 / cpu for cpu in found.ours], "req"),
            report.row(f"{name}: CPU, our own code", [1000 * cpu for cpu in found.ours], "ms"),
            report.row(f"{name}: CPU, the emulator", [1000 * cpu for cpu in found.emulators], "ms"),
        ]
    report.publish("api", rows, [], report.versions("aiohttp", "boto3", "aws-lambda-powertools"))


if __name__ == "__main__":
    main()
