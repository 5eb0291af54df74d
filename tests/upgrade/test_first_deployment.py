"""The first deployment of docs/tasks.md: `make build`, and `sam deploy --guided` with a person's answers.

What is deployed here is what the local stack has built, because the emulator cannot run what is built for arm64.
"""

import os
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
LAYERS = ("DependenciesLayer", "NightshiftLayer")
LAYER_BYTES = 24_000_000
# Python 3.14's magic number, and the flag of a file that is never compared with its source (PEP 552).
BYTECODE = (3627).to_bytes(2, "little") + b"\r\n" + (1).to_bytes(4, "little")


@pytest.fixture
def account() -> Iterator[Local]:
    with emulated_account(FOLDER) as made:
        yield made


def test_a_build_is_for_lambda() -> None:
    command = "make build"
    assert any(line.startswith(command) for _, block in blocks() for line in block.splitlines())
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "RUNTIME", "LAYER_"))}
    subprocess.run(command.split(), cwd=ROOT, env=own, check=True)

    files = [path for layer in LAYERS for path in (ROOT / ".aws-sam" / "build" / layer).rglob("*") if path.is_file()]
    sources = [path for path in files if path.suffix == ".py"]
    heads = [(path.parent / "__pycache__" / f"{path.stem}.cpython-314.pyc").read_bytes()[:8] for path in sources]
    assert set(heads) == {BYTECODE}
    assert {"pydantic", "aiohttp", "nightshift"} <= {path.parent.name for path in sources}
    assert [path.name for path in files if path.suffix == ".so" and "314-aarch64" not in path.name] == []
    assert sum(path.stat().st_size for path in files) < LAYER_BYTES


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
