"""Things break while a batch runs, and every line still comes out exactly once, in order.

`make test` runs this small; `make chaos` sets CHAOS_LINES to run it large.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Local, assert_every_line_once, batch_file, wait_for

LINES = int(os.environ.get("CHAOS_LINES", "3000"))
SECONDS = 60 + LINES / 20


class Killer(threading.Thread):
    """Kills a worker of ``function`` with SIGKILL now and then, until it is stopped."""

    def __init__(self, folder: Path, function: str, every: tuple[float, float]) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._marks = (str(folder), f"-{function}-")
        self._every = every
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(random.uniform(*self._every)):
            for pid in self._workers():
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _workers(self) -> Iterator[int]:
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    command = (process / "cmdline").read_text()
                except OSError:
                    continue  # it ended meanwhile
                if all(mark in command for mark in self._marks):
                    yield int(process.name)


@pytest.fixture
def kill(local: Local) -> Iterator[Killer]:
    killer = Killer(local.folder, "RunChunk", (3, 6))
    killer.start()
    yield killer
    if killer.is_alive():
        killer.stop()


def test_killed_workers_and_a_bad_upstream_lose_and_double_nothing(local: Local, kill: Killer) -> None:
    local.upstream.set(
        latency_ms=400,
        jitter_ms=350,
        error_rate={"500": 0.05, "429": 0.05},
        reset_rate=0.01,
    )
    batch = local.create(batch_file(LINES))
    wait_for(lambda: kill.kills >= 2)
    local.upstream.set(down=True)
    time.sleep(3)  # how long the upstream is down, not a wait for anything
    local.upstream.set(down=False)

    batch = local.ended(batch, SECONDS)
    kill.stop()

    assert batch.status == "completed"
    # Five tries in a row can meet a 500 or a reset: those lines are in the error file, and nothing else is.
    assert_every_line_once(local, batch.id, LINES)
    counters = local.upstream.counters()
    answered_badly = counters["by_status"]["500"] + counters["by_status"]["429"] + counters["reset"]
    resent = counters["received"] - LINES - answered_badly
    sys.stdout.write(f"\n{kill.kills} workers killed; {resent} of {LINES} requests sent again because of it\n")
    # Each kill costs at most what was in flight or not yet kept: 256 requests, and four seconds of answers.
    assert resent <= (kill.kills + 1) * (256 + 5 * 256 / 0.4)


def test_a_cancel_among_killed_workers_keeps_every_line(local: Local, kill: Killer) -> None:
    local.upstream.set(latency_ms=1000, jitter_ms=900)
    batch = local.create(batch_file(LINES))
    wait_for(lambda: kill.kills >= 1)

    local.client.batches.cancel(batch.id)
    batch = local.ended(batch, SECONDS)

    assert batch.status == "cancelled"
    assert_every_line_once(local, batch.id, LINES, {"batch_cancelled"})


def test_an_expiry_among_killed_workers_keeps_every_line(local: Local, kill: Killer) -> None:
    local.upstream.set(latency_ms=1000, jitter_ms=900)
    with local.environment("CreateBatch", COMPLETION_WINDOW_SECONDS="8"):
        batch = local.create(batch_file(LINES))

    batch = local.ended(batch, SECONDS)

    assert batch.status == "expired"
    assert_every_line_once(local, batch.id, LINES, {"batch_expired"})
