"""What a million lines cost in batch mode: Nightshift's part of it, counted in a run of 50,000 lines, at list prices.

The provider is the simulator, whose batch ends after a few seconds. A real one takes hours, in which a worker looks at
it again and again; those visits are counted with the real rule of their pauses, and each is priced as the longest of
the run. All time of the functions is priced as CPU time.
"""

from copy import deepcopy

from nightshift.submissions.decision import poll_pause

from bench import cost, report
from bench.meter import Usage, metered
from bench.stack import stack

# A visit that only looks: its transitions, its time in seconds on a whole core, and its reads and writes.
VISIT_TRANSITIONS = 3
VISIT_SECONDS = 0.15
VISIT_READS, VISIT_WRITES = 6, 4
HOURS = (1, 6, 23)
WANTED = 0.02
# What RunChunk's time alone cost for a million lines in real time when batch mode was made.
REALTIME = 0.27


def looks(seconds: float) -> int:
    """How often a batch that takes ``seconds`` is looked at."""
    age, count = 0.0, 0
    while age < seconds:
        age += poll_pause(age)
        count += 1
    return count


def after(usage: Usage, seconds: float) -> Usage:
    """The usage of the same batch if the provider takes ``seconds``."""
    more = looks(seconds)
    scaled = deepcopy(usage)
    scaled.transitions += VISIT_TRANSITIONS * more
    scaled.invocations["RunChunk"] += more
    scaled.seconds["RunChunk"] += VISIT_SECONDS * more
    scaled.units["RunChunk", "read"] += VISIT_READS * more
    scaled.units["RunChunk", "write"] += VISIT_WRITES * more
    return scaled


def main() -> None:
    with stack("batch-mode") as local, metered(local) as meter:
        memory = cost.memory_of(local)
        url = local.description["upstream_url"]
        local.upstream.set(batch_seconds=10)
        counted = cost.run_batch(local, meter, cost.LINES, 0.0, url, polls=60, mode="batch")
    rows, totals = [], {}
    for hours in HOURS:
        usage = after(counted, hours * 3600)
        used = cost.amounts(usage, memory, waiting=None)
        prices = {what: amount * 1e6 / cost.LINES for what, amount in cost.dollars(used).items()}
        totals[hours] = sum(prices.values())
        name = f"a provider that takes {hours} h"
        rows += [cost.row(f"{name}: looks at one batch", looks(hours * 3600), "")]
        rows += [cost.row(f"{name}: $ per 1M lines: {what}", price, "$") for what, price in sorted(prices.items())]
        rows += [cost.row(f"{name}: $ per 1M lines: all", totals[hours], "$", REALTIME)]
    targets = [
        report.target("$ per 1M lines, a provider that takes 1 h", totals[1], WANTED, at_least=False),
        report.target("$ per 1M lines, a provider that takes 6 h", totals[6], REALTIME, at_least=False),
    ]
    report.publish("batch_mode", rows, targets, report.versions("aiohttp", "boto3"))


if __name__ == "__main__":
    main()
