"""The cost of TLS connections in a worker: memory, and CPU for each request, with asyncio's event loop, as on Lambda.

Each figure comes from a new process with the worker's imports and AWS clients, which sends with the real `Upstream`:
first all requests at once, which opens the connections, then some rounds on the same connections. SSL_CERT_FILE adds
the certificate of the run to the trusted ones.
"""

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nightshift.core import aws
from nightshift.engine.slice import ANSWER_BYTES
from nightshift.routes.route import Route, Sku
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.client import Upstream

from bench import report, stub
from bench.peers import BODY, cpu_seconds

CONNECTIONS = (1, 256, 1_000)
ROUNDS = 5

Figures = Mapping[str, list[float]]


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one PEM file."""
    key, made = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *subject]
    subprocess.run([*new, "-keyout", key, "-out", made], check=True, capture_output=True)
    (folder / "both.pem").write_bytes(made.read_bytes() + key.read_bytes())
    usual = Path(ssl.get_default_verify_paths().cafile or os.devnull)
    (folder / "trusted.pem").write_bytes(made.read_bytes() + usual.read_bytes())
    return folder / "both.pem"


def memory(name: str) -> float:
    """``VmRSS`` (resident now) or ``VmHWM`` (the peak of it), in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


async def client(url: str, connections: int) -> dict[str, float]:
    """Memory in MB before the first connection and at the ``peak``; CPU ms/request, also of ``connecting``."""
    route = Route(model="m", provider="stub", base_url=url, upstream_model="stub", sku=Sku("stub"))

    async def round_of(upstream: Upstream, number: int) -> None:
        answers = await asyncio.gather(*(upstream.send(BODY, f"{number}-{n}") for n in range(connections)))
        assert all(answer.status == 200 for answer in answers), answers[0]

    base = memory("VmRSS")
    async with Upstream(route, None, connections, ByteBudget(ANSWER_BYTES)) as upstream:
        connecting = cpu_seconds()
        await round_of(upstream, 0)
        busy = cpu_seconds()
        for number in range(ROUNDS):
            await round_of(upstream, number + 1)
        cpu = cpu_seconds() - busy
    return {
        "base": base,
        "peak": memory("VmHWM"),
        "connecting": 1000 * (busy - connecting) / connections,
        "cpu": 1000 * cpu / (ROUNDS * connections),
    }


def measure() -> dict[str, Figures]:
    """Every figure of ``client`` by "<connections> over <protocol>", one value for each run."""
    figures: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        made = certificate(Path(folder))
        trusting = os.environ | {"SSL_CERT_FILE": f"{folder}/trusted.pem", "AWS_DEFAULT_REGION": "us-east-1"}

        def run(name: str, url: str, connections: int) -> float:
            command = [sys.executable, "-m", "bench.tls", "--client", url, str(connections)]
            output = subprocess.run(command, env=trusting, check=True, stdout=subprocess.PIPE).stdout
            found: dict[str, float] = json.loads(output)
            for figure, value in found.items():
                figures[figure][name].append(value)
            return found["peak"]

        with stub.upstream(100) as plain, stub.upstream(100, certificate=made) as tls:
            runs: dict[str, Callable[[], float]] = {
                f"{connections} over {name}": partial(run, f"{connections} over {name}", url, connections)
                for connections in CONNECTIONS
                for name, url in (("HTTP", plain), ("TLS", tls))
            }
            report.repeat(runs)
    return dict(figures)


def memory_rows(peaks: Figures) -> list[dict[str, Any]]:
    """Every peak, and what one connection adds to it."""
    rows = [report.row(f"peak, {name}", values, "MB", peaks["1 over HTTP"]) for name, values in peaks.items()]
    for count in CONNECTIONS[1:]:
        for name in ("HTTP", "TLS"):
            pairs = zip(peaks[f"1 over {name}"], peaks[f"{count} over {name}"], strict=True)
            each = [1024 * (many - one) / (count - 1) for one, many in pairs]
            rows.append(report.row(f"each of {count} over {name}", each, "KiB"))
    return rows


def cpu_rows(what: str, found: Figures) -> list[dict[str, Any]]:
    return [
        report.row(f"{what}, {count} over {name}", found[f"{count} over {name}"], "ms/req", found[f"{count} over HTTP"])
        for count in CONNECTIONS[1:]
        for name in ("HTTP", "TLS")
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS, metavar=("URL", "CONNECTIONS"))
    given = parser.parse_args()
    if given.client:
        import functions.run_chunk.app  # noqa: F401 (the figures include the worker's own memory)

        aws.client("s3"), aws.client("dynamodb")
        print(json.dumps(asyncio.run(client(given.client[0], int(given.client[1])))))
        return
    figures = measure()
    rows = memory_rows(figures["peak"])
    rows += cpu_rows("CPU, keep-alive", figures["cpu"])
    rows += cpu_rows("CPU, connecting and first answer", figures["connecting"])
    report.publish("tls", rows, [], report.versions("aiohttp"))


if __name__ == "__main__":
    main()
