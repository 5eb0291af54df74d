"""The last release is deployed, batches begin, and today's code is deployed over it: `make upgrade`.

Needs the repository's history, and is not a part of `make test`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import deployment
from local.processes import free_port
from local.settings import ROOT
from tests.e2e.conftest import Local, assert_every_line_once, batch_file, wait_for

# The last release: there is no tag yet.
RELEASE = os.environ.get("RELEASE", "34bcb24bd4befdc1513636d57c3e07238ca4d999")
COUNTS = (3_000, 12_000, 2_000)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    """A running stack of the last release, made by its own code."""
    folder = ROOT / ".local" / "upgrade"
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "--extract"], cwd=source, check=True, input=archive.stdout)
    shutil.copytree(ROOT / "functions/api/site", source / "functions/api/site", dirs_exist_ok=True)
    (source / ".local").mkdir()
    (source / ".local/emulator").symlink_to(ROOT / ".local/emulator")
    monkeypatch.setenv("NIGHTSHIFT_PORT", str(free_port()))
    environment = os.environ | {"PYTHONPATH": f"{source}:{source}/layers/nightshift"}

    def stack(command: str) -> None:
        subprocess.run([sys.executable, "-m", "local.stack", command], cwd=source, env=environment, check=True)

    try:
        stack("up")
        description: dict[str, Any] = json.loads((source / ".local/stack.json").read_text())
        running = Local(source / ".local", description)
        yield running
        running.close()
    finally:
        stack("down")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(600)
def test_batches_of_the_last_release_are_finished_by_todays_code(old: Local, tmp_path: Path) -> None:
    old.upstream.set(latency_ms=8_000)
    begun = [old.create(batch_file(count)) for count in COUNTS]
    wait_for(lambda: sum(old.upstream.counters()["requests"].values()) > 0)
    endpoint = old.description["aws_endpoint_url"]
    deployment.deploy(endpoint, tmp_path)
    # The emulator makes a changed API anew, where AWS changes it.
    api = deployment.stack_outputs(endpoint)["RestApiId"]
    base_url = f"{old.description['base_url'].rpartition('/_aws/')[0]}/_aws/execute-api/{api}/v1"
    today = Local(old.folder, old.description | {"base_url": base_url})
    today.upstream.set(latency_ms=0)
    try:
        for batch, count in zip(begun, COUNTS, strict=True):
            assert today.ended(batch, seconds=300).status == "completed"
            assert_every_line_once(today, batch.id, count)
        assert today.ended(today.create(batch_file(200))).status == "completed"
    finally:
        today.close()
