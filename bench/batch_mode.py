"""What a million lines cost in batch mode: Nightshift's part of it, counted in a run of 50,000 lines, at list prices.

The provider is the simulator. The sweep has a worker look twice: while the provider works, and when its batch has
ended. A real provider takes hours, in which it is looked at again and again, with the pauses of the real rule. Each
further look is priced as the first of the run, in a new worker, because minutes are between two. A caller asks once a
minute for an hour.
"""

import json
import time

from nightshift.submissions.decision import SWEPT_FROM_SECONDS, UNSWEPT_SECONDS, poll_pause
from openai import OpenAI

from bench import cost, report
from bench.meter import Meter, Usage, metered
from bench.stack import stack
from local.settings import ROOT
from tests.e2e.conftest import Local, wait_for
from tests.e2e.looks import record_of, sweep_looks

# The looks of the run.
LOOKS = 2
# How late a sweep looks on average, in seconds: half the time between two.
LATE_SECONDS = 150
# What an execution enters each time when it wakes by itself.
WAKING_TRANSITIONS = 3
POLLS = 60
HOURS = (1, 6, 23)
WANTED = 0.02


def looks(seconds: float) -> int:
    """How often the sweep looks at a batch that takes ``seconds``."""
    age, count = 0.0, 0
    while age < seconds:
        pause = poll_pause(cost.LINES, age)
        assert pause >= SWEPT_FROM_SECONDS
        age += pause + LATE_SECONDS
        count += 1
    return count


def run(local: Local, meter: Meter) -> tuple[Usage, Usage]:
    """The usage of a batch whose provider is looked at ``LOOKS`` times, and of the first of these looks alone."""
    url = local.description["upstream_url"]
    cost.run_batch(local, meter, 100, 0.0, url, mode="batch")  # the cold start of every function
    local.invoke("Sweep", {})
    look = Usage()

    def look_twice(batch_id: str) -> None:
        nonlocal look

        def workers_ended() -> float:
            """How many invocations of RunChunk have reported."""
            return meter.stop(batch_id).invocations["RunChunk"]

        wait_for(lambda: record_of(batch_id).look_at and workers_ended() == 1)
        before = meter.stop(batch_id)
        sweep_looks(local, batch_id)
        wait_for(lambda: workers_ended() == 2)
        time.sleep(2)  # what the look's writes lead to
        look = meter.stop(batch_id).plus(before, -1)
        local.upstream.set(batch_stuck=False)
        provider = OpenAI(base_url=url, api_key="any")
        wait_for(lambda: provider.batches.list().data[0].status == "completed", 300)
        sweep_looks(local, batch_id)

    local.upstream.set(batch_stuck=True)
    used = cost.run_batch(local, meter, cost.LINES, 0.0, url, polls=POLLS, meanwhile=look_twice, mode="batch")
    return used, look


def worker_start() -> float:
    """The seconds of a worker's cold start on a whole core, as `bench.cold_start` has published them."""
    rows = json.loads((ROOT / "bench" / "results" / "cold_start.json").read_text())["rows"]
    return next(float(row["median"]) / 1000 for row in rows if row["name"] == "run_chunk")


def after(used: Usage, look: Usage, seconds: float) -> Usage:
    """The usage of the same batch if its provider takes ``seconds``."""
    count, start = looks(seconds), worker_start()
    scaled = used.plus(look, count - LOOKS)
    scaled.seconds["RunChunk"] += count * start
    scaled.cpu["RunChunk"] += count * start
    scaled.transitions += WAKING_TRANSITIONS * int(seconds // UNSWEPT_SECONDS)
    return scaled


def main() -> None:
    with stack("batch-mode") as local, metered(local) as meter:
        memory = cost.memory_of(local)
        used, look = run(local, meter)
    rows, totals = [], {}
    for hours in HOURS:
        usage = after(used, look, hours * 3600)
        prices = {
            what: amount * 1e6 / cost.LINES
            for what, amount in cost.dollars(cost.amounts(usage, memory, waiting=None)).items()
        }
        totals[hours] = sum(prices.values())
        name = f"a provider that takes {hours} h"
        rows += [cost.row(f"{name}: looks at one batch", looks(hours * 3600), "")]
        rows += [cost.row(f"{name}: state transitions of one batch", usage.transitions, "")]
        rows += [cost.row(f"{name}: $ per 1M lines: {what}", price, "$") for what, price in sorted(prices.items())]
        rows += [cost.row(f"{name}: $ per 1M lines: all", totals[hours], "$")]
    targets = [
        report.target(f"$ per 1M lines, a provider that takes {hours} h", totals[hours], WANTED, at_least=False)
        for hours in HOURS[:2]
    ]
    report.publish("batch_mode", rows, targets, report.versions("aiohttp", "boto3"))


if __name__ == "__main__":
    main()
