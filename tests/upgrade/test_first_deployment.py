"""`sam deploy --guided`, the first deployment of docs/tasks.md, with a person's answers.

It deploys what the local stack has built: `make build` builds for Lambda's arm64, which the emulator cannot run.
"""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from local import deployment
from local.settings import REGION, ROOT
from tests.e2e.conftest import Local
from tests.e2e.tasks import blocks
from tests.unit.transformed import transformed
from tests.upgrade.account import emulated_account

FOLDER = ROOT / ".local" / "first-deployment"
NAME = "nightshift-guided"
EMAIL = "operator@example.com"


@pytest.fixture
def account() -> Iterator[Local]:
    with emulated_account(FOLDER) as made:
        yield made


def test_a_first_deployment_asks_what_it_says(account: Local) -> None:
    deploy = ".venv/bin/sam deploy --guided"
    assert any(line.startswith(deploy) for _, block in blocks() for line in block.splitlines())
    # The answers are not kept in this repository's file.
    config = shutil.copy(ROOT / "samconfig.toml", FOLDER)
    questions = list(transformed()["Parameters"])
    answers = [NAME, REGION, *(EMAIL if name == "AlarmEmail" else "" for name in questions), "n", "", "", "n"]
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
