"""`sam deploy --guided`, the first deployment of docs/tasks.md, with a person's answers.

It deploys what the local stack has built: `make build` builds for Lambda's arm64, which the emulator cannot run.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from local import deployment
from local.processes import free_port
from local.settings import REGION, ROOT
from tests.e2e.conftest import Local
from tests.e2e.tasks import blocks
from tests.unit.transformed import transformed

FOLDER = ROOT / ".local" / "first-deployment"
NAME = "nightshift-guided"
EMAIL = "operator@example.com"


@pytest.fixture
def account() -> Iterator[Local]:
    """An emulated AWS account."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    environment = os.environ | {"NIGHTSHIFT_LOCAL_DIR": str(FOLDER), "NIGHTSHIFT_PORT": str(free_port())}

    def stack(command: str) -> None:
        subprocess.run([sys.executable, "-m", "local.stack", command], cwd=ROOT, env=environment, check=True)

    try:
        stack("up")
        with closing(Local(FOLDER, json.loads((FOLDER / "stack.json").read_text()))) as made:
            yield made
    finally:
        stack("down")
        shutil.rmtree(FOLDER, ignore_errors=True)


def test_a_first_deployment_asks_what_it_says(account: Local) -> None:
    deploy = ".venv/bin/sam deploy --guided"
    assert any(line.startswith(deploy) for _, block in blocks() for line in block.splitlines())
    # The answers are not kept in this repository's file.
    config = shutil.copy(ROOT / "samconfig.toml", FOLDER)
    questions = list(transformed()["Parameters"])
    # The second is for the emulator, which has no rules of Contributor Insights.
    given = {"AlarmEmail": EMAIL, "AllowPlainHttp": "true"}
    answers = [NAME, REGION, *(given.get(name, "") for name in questions), "n", "", "", "n"]
    done = subprocess.run(
        [*deploy.split(), "--config-file", config, "--template-file", FOLDER / "build" / "template.yaml"],
        cwd=ROOT,
        env=deployment.environment(account.description["aws_endpoint_url"]),
        input="\n".join(answers) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = [
        line for line in done.stdout.replace("\r", "\n").split("Parameter ")[1:] if line.split(" ")[0] in questions
    ]
    assert [line.split(" ")[0] for line in asked[: len(questions)]] == questions
    (stack,) = account.aws("cloudformation").describe_stacks(StackName=NAME)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    (subscription,) = account.aws("sns").list_subscriptions()["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", EMAIL)
