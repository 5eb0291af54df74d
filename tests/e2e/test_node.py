"""The official Node SDK and Vercel's AI SDK against the stack: runs tests/e2e/node. `make install` installs them."""

import os
import shutil
import subprocess

from nightshift.accounts import store as accounts
from nightshift.routes import store as routes
from nightshift.routes.route import Route, Sku

from local.settings import ROOT
from tests.e2e.conftest import Account, Local

FOLDER = ROOT / "tests" / "e2e" / "node"
SLASHED_MODEL = "someone/with/a-model"


def test_the_node_sdks(local: Local, account: Account) -> None:
    node = shutil.which("node")
    assert node is not None, "Node 20 or later is needed"
    full = Account(local)
    accounts.set_quotas(full.id, {"active_batches": 0})
    url = local.description["upstream_url"]
    routes.apply([Route(model=SLASHED_MODEL, provider="p", base_url=url, upstream_model="m", sku=Sku("node"))])

    done = subprocess.run(
        [node, "--test", "sdk.test.mjs", "ai.test.mjs"],
        cwd=FOLDER,
        env={
            "PATH": os.environ["PATH"],
            "OPENAI_BASE_URL": local.description["base_url"],
            "OPENAI_API_KEY": account.key,
            "FULL_API_KEY": full.key,
            "SLASHED_MODEL": SLASHED_MODEL,
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
