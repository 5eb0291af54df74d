"""Whose workers are whose, while several stacks run."""

import subprocess
import sys
from pathlib import Path

from local.processes import workers


def test_workers_belong_to_one_stack(tmp_path: Path) -> None:
    script = tmp_path / "e2e-callers" / "tmp" / "ministack-lambda-nightshift-RunChunk-1" / "worker.py"
    command = [sys.executable, "-c", "print(flush=True); input()", str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = {folder: list(workers(tmp_path / folder)) for folder in ("e2e", "e2e-callers")}
        process.communicate(b"\n")
    assert found == {"e2e": [], "e2e-callers": [(process.pid, "RunChunk")]}
