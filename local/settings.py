"""The names and paths of the local stack."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
STACK_NAME = "nightshift"
MODEL = "demo-model"
SECRET = "nightshift/upstream"
# With AUTH=true this key is the emulator's root user, and IAM policies apply to all others.
ROOT_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class StackError(Exception):
    """A command failed; the message has the reason and what to do."""


def emulator_python() -> Path:
    """The emulator's Python. It has only Lambda's packages, so that a package missing in a layer is found."""
    return ROOT / ".local" / "emulator" / "bin" / "python"
