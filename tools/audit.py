"""Known vulnerabilities of the locked dependencies, as `make check` asks for them.

``uv audit`` asks osv.dev and ``npm audit`` the npm registry. Where those cannot be reached, as on a machine that has
only package registries, this is said and is no failure; with ``AUDIT=required`` it is one, as in our GitHub workflow.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
UV = [os.environ.get("UV", "uv"), "audit", "--frozen", "--preview-features", "audit-command"]
NPM = ["npm", "audit"]
# Each lock file's folder.
AUDITS = (
    (UV, ROOT),
    (UV, ROOT / "tests/e2e/clients"),
    (NPM, ROOT / "console"),
    (NPM, ROOT / "tests/e2e/node"),
    (NPM, ROOT / "tools/bytecode"),
)
# How the two commands say that they got no answer. Both exit with 1 where they found something.
UNREACHABLE = ("error sending request", "audit endpoint returned an error", "npm error network", "ENOTFOUND")


def outcome(status: int, output: str) -> Literal["clean", "vulnerable", "unreachable"]:
    """What an audit that ended with ``status`` has found.

    What is no answer and no known way to get none counts as a finding, so that nothing passes by mistake.
    """
    if status == 0:
        return "clean"
    return "unreachable" if any(words in output for words in UNREACHABLE) else "vulnerable"


def main() -> int:
    required = os.environ.get("AUDIT") == "required"
    environment = os.environ | {"UV_HTTP_RETRIES": "1"}
    failed = False
    for command, folder in AUDITS:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        found = outcome(done.returncode, done.stdout + done.stderr)
        name = f"{Path(command[0]).name} audit in {folder.relative_to(ROOT)}"
        if found == "vulnerable" or (found == "unreachable" and required):
            failed = True
            print(f"{name}: {found}\n{done.stdout}{done.stderr}")
        elif found == "unreachable":
            print(f"{name}: NOT AUDITED, because the database of vulnerabilities cannot be reached.")
        else:
            print(f"{name}: nothing known.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
