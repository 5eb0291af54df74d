"""The last release is deployed, batches begin, and today's code is deployed over it; and back: `make upgrade`.

Needs the repository's history, and is not a part of `make test`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from nightshift.input.layout import WORKER_CONCURRENCY
from openai.types import Batch

from local import deployment
from local.processes import free_port
from local.settings import MODEL, ROOT
from tests.e2e.conftest import ENDED, Local, assert_every_line_once, batch_file, wait_for

# The last release: there is no tag yet.
RELEASE = os.environ.get("RELEASE", "34bcb24bd4befdc1513636d57c3e07238ca4d999")
COUNTS = (3_000, 12_000, 2_000)
FOLDER = ROOT / ".local" / "upgrade"
SOURCE = FOLDER / "source"


class Upgrade:
    """A stack that is deployed from the last release's code, and from today's."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._opened = ExitStack()
        self._is_todays = False

    def release(self, code: str) -> None:
        """Run Python code of the last release."""
        subprocess.run([sys.executable, "-c", code], cwd=SOURCE, env=self._environment, check=True)

    def stack(self, command: str) -> None:
        self.release(f"import sys; from local import stack; sys.argv = ['stack', '{command}']; sys.exit(stack.main())")

    def deploy_release(self) -> Local:
        endpoint = self._described().description["aws_endpoint_url"]
        build = FOLDER / "build"
        self.release(f"import pathlib, local.deployment as d; d.deploy({endpoint!r}, pathlib.Path({str(build)!r}))")
        self._is_todays = False
        return self.now()

    def deploy_today(self) -> Local:
        if not self._is_todays:
            deployment.deploy(self._described().description["aws_endpoint_url"], FOLDER / "build-today")
            self._is_todays = True
        return self.now()

    def now(self) -> Local:
        """The stack as it is deployed now."""
        stack = self._described()
        # The emulator makes a changed API anew, where AWS changes it.
        api = deployment.stack_outputs(stack.description["aws_endpoint_url"])["RestApiId"]
        base_url = f"{stack.description['base_url'].rpartition('/_aws/')[0]}/_aws/execute-api/{api}/v1"
        return self._local(stack.description | {"base_url": base_url})

    def close(self) -> None:
        self._opened.close()

    def _described(self) -> Local:
        return self._local(json.loads((SOURCE / ".local/stack.json").read_text()))

    def _local(self, description: dict[str, object]) -> Local:
        return self._opened.enter_context(closing(Local(SOURCE / ".local", description)))


@pytest.fixture(scope="module")
def upgrade() -> Iterator[Upgrade]:
    """A running stack of the last release, made by its own code."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", RELEASE], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "--extract"], cwd=SOURCE, check=True, input=archive.stdout)
    shutil.copytree(ROOT / "functions/api/site", SOURCE / "functions/api/site", dirs_exist_ok=True)
    (SOURCE / ".local").mkdir()
    (SOURCE / ".local/emulator").symlink_to(ROOT / ".local/emulator")
    path = {"PYTHONPATH": f"{SOURCE}:{SOURCE}/layers/nightshift"}
    made = Upgrade(os.environ | path | {"NIGHTSHIFT_PORT": str(free_port())})
    try:
        made.stack("up")
        yield made
    finally:
        made.close()
        made.stack("down")
        shutil.rmtree(FOLDER, ignore_errors=True)


def begun(stack: Local, model: str = MODEL) -> list[Batch]:
    """Batches that the deployed code has begun, whose requests take long."""
    stack.upstream.reset()
    stack.upstream.set(latency_ms=8_000)
    batches = [stack.create(batch_file(count, model)) for count in COUNTS]
    wait_for(lambda: sum(stack.upstream.counters()["requests"].values()) > 0)
    return batches


def tasks(stack: Local, batch: Batch) -> list[Any]:
    """What the batch's plan has for its workers, one for each chunk."""
    found = stack.aws("s3").get_object(Bucket=stack.bucket(), Key=f"work/{batch.id}/plan.json")
    return list(json.loads(found["Body"].read()))


def assert_finished(stack: Local, batches: list[Batch]) -> None:
    """The batches, of which the largest has not ended, end as if nothing had happened."""
    assert stack.client.batches.retrieve(batches[COUNTS.index(max(COUNTS))].id).status not in ENDED
    stack.upstream.set(latency_ms=0)
    for batch, count in zip(batches, COUNTS, strict=True):
        assert stack.ended(batch, seconds=300).status == "completed"
        assert_every_line_once(stack, batch.id, count)
    assert stack.ended(stack.create(batch_file(200))).status == "completed"


@pytest.mark.timeout(600)
def test_batches_of_the_last_release_are_finished_by_todays_code(upgrade: Upgrade) -> None:
    batches = begun(upgrade.now())
    assert_finished(upgrade.deploy_today(), batches)


@pytest.mark.timeout(600)
def test_batches_of_todays_code_are_finished_by_the_last_release(upgrade: Upgrade, tmp_path: Path) -> None:
    """Going back. The format of batches has not changed since the last release (CHANGELOG.md, ADR 18)."""
    today = upgrade.deploy_today()
    # With two workers: a batch of two chunks, and batches of one, which have no Map Run.
    route = {"model": "wide", "provider": "p", "base_url": today.description["upstream_url"], "upstream_model": "m"}
    routes = tmp_path / "routes.json"
    routes.write_text(json.dumps([route | {"sku": {"id": "wide"}, "max_concurrency": WORKER_CONCURRENCY + 1}]))
    today.admin("routes", "apply", str(routes))
    batches = begun(today, "wide")
    assert [len(tasks(today, batch)) for batch in batches] == [1, 2, 1]
    assert_finished(upgrade.deploy_release(), batches)
