"""The functions' settings. Each is read from the environment at its use, never at import."""

import os
from typing import Literal


def table(name: str) -> str:
    """The DynamoDB table for ``name``: ``accounts``, ``batches``, ``files``, ``idempotency_keys``, ``route_state`` or
    ``routes``."""
    return os.environ[f"{name.upper()}_TABLE"]


def bucket() -> str:
    return os.environ["BUCKET"]


def event_bus() -> str:
    return os.environ["EVENT_BUS"]


def event_dead_letters_url() -> str:
    return os.environ["EVENT_DEAD_LETTERS_URL"]


def state_machine() -> str:
    return os.environ["STATE_MACHINE"]


def run_chunk() -> str:
    """The name of the function RunChunk."""
    return os.environ["RUN_CHUNK"]


def s3_addressing_style() -> Literal["virtual", "path"]:
    """Whether S3's URLs name the bucket in the host (``virtual``, as AWS demands) or in the path, for the emulator."""
    return "path" if os.environ.get("S3_ADDRESSING_STYLE") == "path" else "virtual"


def sync_validation_seconds() -> float:
    """How long create may validate a file before the state machine takes over; 0 leaves it to the state machine."""
    return float(os.environ["SYNC_VALIDATION_SECONDS"])


def completion_window_seconds() -> int:
    """How long after its creation a batch expires. A day, which the API calls ``24h``; tests of expiry set less."""
    return int(os.environ.get("COMPLETION_WINDOW_SECONDS", "86400"))


def webhook_delays() -> list[int]:
    """The gaps between the tries of a webhook, in seconds: 24 hours in all. Tests set shorter ones."""
    delays = os.environ.get("WEBHOOK_DELAYS", "5,25,90,480,3000,10800,28860,43140")
    return [int(delay) for delay in delays.split(",")]


def allow_local_webhooks() -> bool:
    """Whether webhooks may go to loopback addresses over plain HTTP. Never on AWS: local/emulated.py alone sets it."""
    return os.environ.get("ALLOW_LOCAL_WEBHOOKS") == "1"


def has_console() -> bool:
    return os.environ.get("CONSOLE") != "off"


def webhook_queue_url() -> str:
    return os.environ["WEBHOOK_QUEUE_URL"]


def webhook_dead_letters_url() -> str:
    return os.environ["WEBHOOK_DEAD_LETTERS_URL"]
