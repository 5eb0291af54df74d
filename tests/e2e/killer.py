"""Crashes of workers."""

import contextlib
import os
import random
import signal
import sys
import threading
from pathlib import Path

from local.processes import workers


class Killer(threading.Thread):
    """Kills every worker of ``function`` with SIGKILL at intervals, at most ``times`` times, until it is stopped."""

    def __init__(self, folder: Path, function: str, every: tuple[float, float], times: int = sys.maxsize) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._folder, self._function = folder, function
        self._every = every
        self._times = times
        self._over = threading.Event()

    def run(self) -> None:
        while self.kills < self._times and not self._over.wait(random.uniform(*self._every)):
            for pid in [pid for pid, function in workers(self._folder) if function == self._function]:
                with contextlib.suppress(ProcessLookupError):  # the process has ended
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()
