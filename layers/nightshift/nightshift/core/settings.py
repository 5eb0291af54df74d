"""What the stack tells its functions, read from the environment when first asked for, never at import."""

import os


def table(name: str) -> str:
    """The DynamoDB table for ``name``: ``accounts``, ``batches``, ``files`` or ``routes``."""
    return os.environ[f"{name.upper()}_TABLE"]


def idempotency_table() -> str:
    return os.environ["IDEMPOTENCY_KEYS_TABLE"]


def bucket() -> str:
    return os.environ["BUCKET"]


def event_bus() -> str:
    return os.environ["EVENT_BUS"]


def state_machine() -> str:
    return os.environ["STATE_MACHINE"]


def is_emulated() -> bool:
    """Whether AWS is an emulator: it is reached by this variable, which AWS's SDKs read too."""
    return "AWS_ENDPOINT_URL" in os.environ


def sync_validation_seconds() -> float:
    return float(os.environ["SYNC_VALIDATION_SECONDS"])


def completion_window_seconds() -> int:
    return int(os.environ["COMPLETION_WINDOW_SECONDS"])


def webhook_delays() -> list[int]:
    """Seconds from one try of a webhook to the next."""
    return [int(delay) for delay in os.environ["WEBHOOK_DELAYS"].split(",")]


def allow_local_webhooks() -> bool:
    return os.environ.get("ALLOW_LOCAL_WEBHOOKS") == "true"


def webhook_queue_url() -> str:
    return os.environ["WEBHOOK_QUEUE_URL"]


def webhook_dead_letters_url() -> str:
    return os.environ["WEBHOOK_DEAD_LETTERS_URL"]
