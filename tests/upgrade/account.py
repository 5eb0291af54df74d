"""An emulated AWS account with the local stack in it, for tests that leave it in another state."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from local.processes import free_port
from local.settings import ROOT
from tests.e2e.conftest import Local


@contextmanager
def emulated_account(folder: Path) -> Iterator[Local]:
    """The local stack, deployed to an emulator of its own that keeps its things in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    environment = os.environ | {"NIGHTSHIFT_LOCAL_DIR": str(folder), "NIGHTSHIFT_PORT": str(free_port())}

    def stack(command: str) -> None:
        subprocess.run([sys.executable, "-m", "local.stack", command], cwd=ROOT, env=environment, check=True)

    try:
        stack("up")
        with closing(Local(folder, json.loads((folder / "stack.json").read_text()))) as made:
            yield made
    finally:
        stack("down")
        shutil.rmtree(folder, ignore_errors=True)
